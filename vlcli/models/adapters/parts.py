"""What several formats share: tables of an architecture read off shapes, and refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vlcli.errors import InputError
from vlcli.models.adapters.format import CannotExpress, Checkpoint
from vlcli.models.adapters.vit import count

CLIP_SCALE = 100.0  # CLIP's bound of 1/τ


def plain(state: Mapping[str, Tensor], *, bias: bool = False) -> dict[str, Any]:
    """The head of a global model's architecture: dimension, linear projections, temperature."""
    linear = {"kind": "linear", "bias": bias}
    return {
        "dim": _of(state, "image_projection.weight").shape[0],
        "similarity": "global",
        "image_projection": linear,
        "text_projection": linear,
        "temperature": temperature(state),
    }


def temperature(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """CLIP's bound of 1/τ, or a higher one where the weights are beyond it already."""
    log_scale = _of(state, "log_scale")
    if log_scale.numel() != 1 or not math.isfinite(log_scale.item()):
        raise InputError(f"its temperature is {log_scale.tolist()}")
    found = math.exp(log_scale.item())
    return {"max_scale": CLIP_SCALE if found <= CLIP_SCALE * 1.0001 else math.ceil(found)}


def text_table(
    state: Mapping[str, Tensor], *, pooling: str, heads: int | None = None, **values: Any
) -> dict[str, Any]:
    """The `[model.text]` table of a causal text tower. `heads`: one to 64 channels where nothing says it."""
    vocabulary, width = _of(state, "text.token_embedding.weight").shape
    return {
        "kind": "causal",
        "width": width,
        "layers": count(state, "text.blocks."),
        "heads": heads or max(1, width // 64),
        "context": _of(state, "text.positional_embedding").shape[0],
        "vocabulary": vocabulary,
        "pooling": pooling,
        **values,
    }


def bert_table(state: Mapping[str, Tensor], kind: str, *, context: int, **values: Any) -> dict[str, Any]:
    """The `[model.text]` table of a BERT or RoBERTa of transformers, read at its first token. `values` are those of
    transformers' configuration that no shape tells."""
    embeddings = "text.body.embeddings"
    vocabulary, width = _of(state, f"{embeddings}.word_embeddings.weight").shape
    encoder = {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": count(state, "text.body.encoder.layer."),
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": _of(state, "text.body.encoder.layer.0.intermediate.dense.weight").shape[0],
        "max_position_embeddings": _of(state, f"{embeddings}.position_embeddings.weight").shape[0],
        "type_vocab_size": _of(state, f"{embeddings}.token_type_embeddings.weight").shape[0],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        **values,
    }
    return {
        "kind": "transformers",
        "encoder": encoder,
        "context": context,
        "vocabulary": vocabulary,
        "pooling": "cls",
    }


def _of(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise InputError(f"{name} is missing")
    return state[name]


def refuse_not_global(checkpoint: Checkpoint, *, bias: bool = False) -> None:
    """CannotExpress unless the model compares pooled vectors behind linear projections, with `bias` or without."""
    config = checkpoint.config
    if config.similarity != "global":
        raise CannotExpress(f"it compares pooled vectors, the model has the similarity {config.similarity!r}")
    for side, projection in (("image", config.image_projection), ("text", config.text_projection)):
        if projection.kind != "linear" or projection.bias != bias:
            wanted = "linear with a bias" if bias else "linear without a bias"
            found = f"{projection.kind} with a bias" if projection.bias else projection.kind
            raise CannotExpress(f"its {side} projection is {wanted}, the model's is {found}")


def refuse_no_clip_text(checkpoint: Checkpoint) -> None:
    """CannotExpress unless the text tower is the causal transformer, without a head behind it."""
    text = checkpoint.config.text
    if text.kind != "causal":
        name = text.name or text.encoder.get("model_type", "an encoder of transformers")
        raise CannotExpress(f"its text tower is a causal transformer, the model's is {name}")
    if text.head is not None:
        raise CannotExpress("it has no fully connected layer between the text tower and the projection")


def refuse_no_bert(checkpoint: Checkpoint, *, kinds: Sequence[str]) -> None:
    """CannotExpress unless the text tower is one of transformers' `kinds`, read at its first token."""
    text = checkpoint.config.text
    found = text.encoder.get("model_type", "causal")
    if found not in kinds:
        raise CannotExpress(f"its text tower is {kinds[0]}, the model's is {found}")
    if text.pooling != "cls":
        raise CannotExpress(f"it reads a text at its first token, the model's pooling is {text.pooling!r}")


def subtle_notes(different: Sequence[str], format: str) -> list[str]:
    """A note where a format's own preprocessing gives a few pixels otherwise."""
    if not different:
        return []
    way = f"{format} prepares pictures in its own way ({', '.join(different)})"
    return [f"{way}: some pixels differ a little, and so may scores"]

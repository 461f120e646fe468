"""Where an R2D2 looks when it reads an entity: cross-attention from its tokens to the patches (R2D2 §4.4, App. D)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from vlcli.errors import UsageError
from vlcli.evaluation.alignment import Alignment, Text
from vlcli.evaluation.embed import inference

LAYER = 3  # the paper's


class Entity(NamedTuple):
    """An entity in its text: tokens and positions, and ids and mask (1, n) of the whole."""

    text: Text
    ids: torch.Tensor
    mask: torch.Tensor


def layer_of(model: Any, layer: int | None = None) -> int:
    """A layer of the model's text-image cross encoder, counted from 1: `layer`, or the paper's, or the last where there
    are fewer. UsageError for a model without one, or without that layer."""
    if getattr(model, "ranking", None) is None:
        raise UsageError("--method entity shows the cross encoder of an R2D2, and the checkpoint has none")
    depth = len(model.ranking.text_cross.layers)
    if layer is None:
        return min(LAYER, depth)
    if not 1 <= layer <= depth:
        raise UsageError(f"--layer {layer}: the cross encoder has {depth} layers", remedy=f"--layer {depth}")
    return layer


def encode_entity(model: Any, label: str, prompt: str = "{}") -> Entity:
    """The entity inside `prompt`, its positions found by sub-sequence match.

    Raises UsageError when the entity has no tokens or does not fit into the model's context.
    """
    if prompt.count("{}") != 1:
        raise UsageError(f"the prompt {prompt!r} needs exactly one '{{}}' for the entity")
    filled = prompt.replace("{}", label, 1)
    ids, mask = model.tokenize([filled])
    plain = ids[0, : int(mask.sum())].tolist()
    places = model.tokenizer.find(plain, label)
    if not places or not places[0]:
        cause = "has no tokens" if not label.strip() else "is longer than the model's context"
        raise UsageError(f"the text {label[:40]!r} {cause}")
    positions = sorted({place for found in places for place in found})
    text = Text(label, filled, model.tokenizer.tokens(plain), positions, torch.empty(0))
    return Entity(text, ids, mask)


def attend(
    model: Any, pixels: torch.Tensor, entity: Entity, layer: int, *, by_token: bool = False
) -> Alignment:
    """Attention of layer `layer` of the text-image encoder, mean over heads, without the picture's [CLS].

    pixels (1, 3, H, W), square. `index`: which token looks most at each patch; `similarity`: the mean attention of the
    entity's tokens, a share of all that they pay.
    """
    from vlcli.models.r2d2 import image_states, seen

    text, ids, mask = entity
    with torch.no_grad(), inference(model):
        states = image_states(model.image_features(pixels.to(model.device)))
        hidden = model.text_states(ids, mask)
        scores = model.ranking.text_cross.attention(hidden, states, layer, x_mask=seen(mask))
    looks = scores[0].mean(0)[: len(text.tokens), 1:].float().cpu()  # (n, h·w)
    side = round(looks.shape[1] ** 0.5)
    assert side * side == looks.shape[1], f"{looks.shape[1]} patches of a square picture are no square grid"
    index = looks.argmax(0).reshape(side, side).numpy()
    words = looks[text.positions].reshape(-1, side, side)
    similarity = words.mean(0).numpy().astype(np.float32)
    parts = words.numpy().astype(np.float32) if by_token else None
    return Alignment(text, index.astype(np.int64), similarity, layer, by_token=parts)

"""Grad-CAM with a text as its target: which part of a picture raises its similarity to the text.

    s   = cosine of picture and text                                             a global model
    s_r = max_k V_k · T_r of each token r of the label, s their mean             token-wise and reduced models
    cam = ReLU(Σ_c w_c A_c),  w_c = mean over places of ∂s/∂A_c                  Selvaraju et al. 2017

A is what a layer of the image tower gives. Of a ViT, what enters the attention of block N, its class token left out:
behind the last attention only the class token is read, and every patch has the gradient zero. Of all others, the
maps of stage N; of the last one the maps that are pooled.

`attention_cam` is the figure of FILIP (App. A.3): A is the self-attention of block N (heads, n, n), P the patches
whose best token is one of the label's, s the mean over P of their best similarity,

    cam = mean over P of the rows of mean over heads of ReLU(A ⊙ ∂s/∂A)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.evaluation.alignment import Alignment, Text, require_tokens


def layers_of(model: Any) -> list[Any]:
    """What `layer` counts, from 1: the modules whose output a map is made of; None for the tower's own output."""
    body = model.image.body
    if _is_transformer(body):
        return [getattr(block, "norm1", block) for block in body.blocks]
    stages = [body.get_submodule(stage["module"]) for stage in getattr(body, "feature_info", [])]
    return [*stages[:-1], None]


def check_layer(model: Any, layer: int | None) -> int:
    """The layer, or the last one. UsageError where there is none of that number."""
    depth = len(layers_of(model))
    if layer is not None and not 1 <= layer <= depth:
        what = "blocks" if _is_transformer(model.image.body) else "stages"
        raise UsageError(f"--layer {layer}: the image tower has {depth} {what}", remedy=f"--layer {depth}")
    return layer or depth


def gradcam(
    model: Any, pixels: Tensor, texts: Sequence[Text], layer: int | None = None, *, by_token: bool = False
) -> list[Alignment]:
    """A map of each text over one picture (1, 3, H, W), square; `by_token` one of each of its label's tokens, too.

    Maps run from 0 to 1, `peak` is what 1 stands for. Parameters that are locked, and a caller's no_grad, change
    nothing: the graph begins at the layer.
    """
    layer = check_layer(model, layer)
    module = layers_of(model)[layer - 1]
    held: list[Tensor] = []
    with torch.enable_grad(), _leaf(module, held):
        features = model.image(pixels.to(model.device))
        if module is None:
            held.append(features.tokens.detach().requires_grad_())
            features = features._replace(
                tokens=held[0], pooled=features.pooled if model.image.has_class else _pooled(model, held[0])
            )
        image = model.project_image(features)
        maps = _in_rows(model, held[0], module).detach()[0]  # (places, c)
        found = []
        for text in texts:
            scores = _scores(image, text)
            weights = []
            for score in scores:
                (gradient,) = torch.autograd.grad(score, held[0], retain_graph=True)
                weights.append(_in_rows(model, gradient, module)[0].mean(0))  # (c,)
            every = torch.stack(weights)  # (r, c)
            raw = torch.relu(maps @ torch.cat([every.mean(0, keepdim=True), every]).T).T  # (1 + r, places)
            grids = [_grid(one) for one in raw.cpu()]
            found.append(
                _alignment(
                    text, grids[0], "gradcam", layer, float(scores.detach().mean()),
                    grids[1:] if by_token else None,
                )
            )  # fmt: skip
    return found


def attention_cam(
    model: Any, pixels: Tensor, texts: Sequence[Text], layer: int | None = None, *, weighted: bool = True
) -> list[Alignment]:
    """FILIP's map of each text, of a token-wise model with a ViT; not `weighted`: the attention alone, without its
    gradient."""
    require_tokens(model)
    if not _is_transformer(model.image.body):
        raise UsageError(
            f"--method attention shows the self-attention of a ViT, and the image tower is {model.image.name}",
            remedy="--method gradcam",
        )
    layer = check_layer(model, layer)
    attention = model.image.body.blocks[layer - 1].attn
    if not hasattr(attention, "fused_attn") or not hasattr(attention, "attn_drop"):
        raise UsageError(f"the attention of {model.image.name} cannot be read", remedy="--method gradcam")
    held: list[Tensor] = []
    fused, attention.fused_attn = attention.fused_attn, False
    try:
        with torch.enable_grad(), _leaf(attention.attn_drop, held):
            tokens = model.project_image(model.image(pixels.to(model.device))).tokens[0]  # (patches, d)
    finally:
        attention.fused_attn = fused
    prefix = model.image.prefix
    found = []
    for text in texts:
        best, which = (tokens @ text.vectors.to(tokens).T).max(1)
        assigned = torch.isin(which.cpu(), torch.tensor(text.positions)).to(tokens.device)
        looks, score = held[0].detach()[0], 0.0  # (heads, n, n)
        if assigned.any():
            target = best[assigned].mean()
            score = float(target.detach())
            if weighted:
                (gradient,) = torch.autograd.grad(target, held[0], retain_graph=True)
                looks = torch.relu(looks * gradient[0])
            raw = looks.mean(0)[prefix:, prefix:][assigned].mean(0)
        else:
            raw = torch.zeros(len(tokens))
        method = "attention" if weighted else "plain attention"
        found.append(_alignment(text, _grid(raw.cpu()), method, layer, score, None))
    return found


def _is_transformer(body: Any) -> bool:
    """Tokens in a row through blocks, as of timm's ViT and its kin."""
    return hasattr(body, "blocks") and getattr(body, "num_prefix_tokens", None) is not None


@contextmanager
def _leaf(module: Any, held: list[Tensor]) -> Iterator[None]:
    """The module's output becomes the first tensor of a graph, and is appended to `held`."""

    def cut(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())
        return held[-1]

    handle = module.register_forward_hook(cut) if module is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _pooled(model: Any, tokens: Tensor) -> Tensor:
    """What the tower would pool of these tokens, where it has no class token."""
    return model.image._pool(tokens, tokens)


def _in_rows(model: Any, values: Tensor, module: Any) -> Tensor:
    """(b, places, c) in rows from the top left, whatever the layer's own shape; without prefix tokens."""
    if module is None:
        return values
    if values.dim() == 3:
        return values[:, model.image.prefix :]
    if getattr(model.image.body, "output_fmt", "NCHW") == "NCHW":
        values = values.permute(0, 2, 3, 1)
    return values.flatten(1, 2)


def _scores(image: Any, text: Text) -> Tensor:
    """s_r (r,) of the label's tokens; one of a global model."""
    if image.pooled is not None:
        return image.pooled @ text.vectors.to(image.pooled)[0]
    words = text.vectors[text.positions].to(image.tokens)
    return (image.tokens[0] @ words.T).amax(0)


def _grid(values: Tensor) -> np.ndarray:
    side = round(len(values) ** 0.5)
    assert side * side == len(values), f"{len(values)} places of a square picture are no square grid"
    return values.detach().reshape(side, side).numpy().astype(np.float32)


def _alignment(
    text: Text, grid: np.ndarray, method: str, layer: int, score: float, parts: list[np.ndarray] | None
) -> Alignment:
    return Alignment(
        text,
        None,
        stretched(grid),
        layer,
        method=method,
        score=score,
        peak=float(grid.max()),
        by_token=None if parts is None else np.stack([stretched(part) for part in parts]),
    )


def stretched(grid: np.ndarray) -> np.ndarray:
    """From 0 at its lowest to 1 at its highest place; zeros where all are equal."""
    low, high = float(grid.min()), float(grid.max())
    return (grid - low) / (high - low) if high > low else np.zeros_like(grid)

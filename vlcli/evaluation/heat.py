"""Where in a picture a text is at home: one map over the patches, for every kind of similarity.

token-wise  h_p = mean over the label's tokens r of V_p · T_r: what the score itself compares
reduced     h_p = mean over r of map_k(p) · (value_p · T_r), k the reduced token that r chooses: what each patch
            brings to the text→image score, before the normalisation of Z_k: Σ_p map_k(p) · (value_p · T_r) / |Z_k| is
            r's part of it (with the "released" layer, and with the "paper" one behind a linear projection)
global      h_p = V_p · T, every patch projected as the pooled vector is: nothing was trained to make it local
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vlcli.evaluation.alignment import Text
from vlcli.evaluation.embed import inference


class PatchFeatures(NamedTuple):
    """A batch of pictures, on the CPU in float32: vectors (b, p, d) of the patches in the joint space, and of a
    reduced model maps (b, n', p) and unit tokens (b, n', d)."""

    vectors: torch.Tensor
    maps: torch.Tensor | None
    tokens: torch.Tensor | None
    grid: tuple[int, int]


def patch_features(model: Any, pixels: torch.Tensor, precision: str = "fp32") -> PatchFeatures:
    """Square `pixels` (b, 3, H, W), of any size that the tower takes."""
    with torch.no_grad(), inference(model, precision):
        features = model.image_features(pixels.to(model.device))
        if model.similarity_kind != "reduced":
            vectors, maps, tokens = (
                F.normalize(model.image_projection(features.tokens).float(), dim=-1),
                None,
                None,
            )
        else:
            reduced = model.reduce(features)
            maps, tokens = reduced.maps.cpu(), F.normalize(reduced.tokens.float(), dim=-1).cpu()
            inside = model.reduction.after_projection
            vectors = reduced.values if inside else model.image_projection(reduced.values)
    side = round(vectors.shape[1] ** 0.5)
    assert side * side == vectors.shape[1], (
        f"{vectors.shape[1]} tokens of a square picture are no square grid"
    )
    return PatchFeatures(vectors.float().cpu(), maps, tokens, (side, side))


def heat(patches: PatchFeatures, row: int, text: Text) -> npt.NDArray[np.float32]:
    """h (grid) of one picture of the batch and a label."""
    words = text.vectors[text.positions]  # (r, d)
    scores = patches.vectors[row] @ words.T  # (p, r)
    if patches.maps is not None and patches.tokens is not None:
        chosen = (patches.tokens[row] @ words.T).argmax(0)  # (r,)
        scores = scores * patches.maps[row, chosen].T
    return scores.mean(1).reshape(patches.grid).numpy().astype(np.float32)

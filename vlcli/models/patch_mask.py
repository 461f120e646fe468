"""Patches of a picture hidden behind a learned vector, before the image tower's first layer (R2D2 §3.2, spec D22)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vlcli.errors import UsageError
from vlcli.models.image_tower import ImageFeatures, TimmTower


def patch_width(tower: TimmTower) -> int:
    """Width of a patch's embedding. UsageError for a tower that makes no such embeddings."""
    if getattr(tower.body, "patch_embed", None) is None:
        raise UsageError(
            f"model.patch_mask: {tower.name} has no embeddings of patches that could be masked",
            remedy="--set objective.r2d2.feature_distillation.image=off --set model.patch_mask=false",
        )
    return int(tower.body.embed_dim)


def masked_features(tower: TimmTower, pixels: Tensor, masked: Tensor, vector: Tensor) -> ImageFeatures:
    """The tower's features where each patch of masked (b, n1) has `vector` (c,) in place of its embedding.

    The gradient reaches the vector through a locked tower as well.
    """

    def replace(_: Any, __: Any, out: Tensor) -> Tensor:
        here = masked.view(*out.shape[:-1], 1)  # (b, n1, c), or (b, h, w, c) of a tower that keeps the grid
        return out.where(~here, vector.to(out.dtype))

    handle = tower.body.patch_embed.register_forward_hook(replace)
    try:
        return tower(pixels)
    finally:
        handle.remove()

"""Positions of an image tower brought to another resolution (FILIP §4.1: trained at 224, fine-tuned at 392)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor

from vlcli.errors import UsageError

_TABLE = ".relative_position_bias_table"


def refuse_partial_patches(body: Any, size: int, key: str) -> None:
    """UsageError for pictures of a number of pixels, the recipe's `key`, that the patches of a timm model do not
    divide."""
    patches = getattr(body, "patch_embed", None)
    side = getattr(patches, "patch_size", (1, 1))[0]
    if size % side and not getattr(patches, "dynamic_img_pad", False):
        raise UsageError(
            f"pictures of {size} pixels are no whole number of patches of {side}",
            remedy=f"--set {key}={size // side * side}",
        )


def resize_positions(state: Mapping[str, Tensor], body: Any) -> dict[str, Tensor]:
    """`state` of a timm model with its positions interpolated to the grid of `body`; the rest as it is.

    Bicubic with antialiasing, as open_clip and timm do it; transformers' interpolation has another kernel.

    A ViT's learned positions, its class token's left alone, and the tables of a Swin whose windows differ. A grid that
    is not square is not recognised and stays for the caller to refuse.
    """
    result = dict(state)
    positions, own = state.get("pos_embed"), getattr(body, "pos_embed", None)
    if isinstance(own, Tensor) and positions is not None and positions.shape != own.shape:
        prefix = 0 if getattr(body, "no_embed_class", False) else int(getattr(body, "num_prefix_tokens", 1))
        side = round(max(0, positions.shape[1] - prefix) ** 0.5)
        if positions.shape[2:] == own.shape[2:] and side**2 == positions.shape[1] - prefix:
            result["pos_embed"] = resample_abs_pos_embed(
                positions, new_size=list(body.patch_embed.grid_size), num_prefix_tokens=prefix
            )
    for name, table in state.items():
        if name.endswith(_TABLE):
            try:
                layer = body.get_submodule(name.removesuffix(_TABLE))
            except AttributeError:  # a block that the body lacks: for the caller to refuse
                continue
            wanted = layer.relative_position_bias_table.shape
            if table.shape != wanted and table.shape[1] == wanted[1]:
                result[name] = resize_rel_pos_bias_table(
                    table, new_window_size=layer.window_size, new_bias_shape=wanted
                )
    return result

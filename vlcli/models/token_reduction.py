"""Wukong's token reduction: a few learned tokens in place of all patches (Wukong §4.2, §4.4, Eq 6).

Both forms weigh the patches by n' attention maps, Z_k = Σ_p map_k(p) · value(p). `Reduced` keeps maps and values, so
that a score of a reduced token can be laid back on the patches that made it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlcli.models.config import ReductionConfig

GROUPS = 8  # of the released layer's convolutions


class Reduced(NamedTuple):
    """`tokens` = `maps` · `values`: (b, n', c) = (b, n', h·w) · (b, h·w, c); not normalised."""

    tokens: Tensor
    maps: Tensor
    values: Tensor


class ReleasedReduction(nn.Module):
    """As in the released models: on projected tokens x (b, h·w, d), in the joint space.

    maps = softmax over the positions of conv(grouped conv(LayerNorm(x))), values = grouped conv(x); every convolution
    is 1×1 without bias, and nothing stands between the first two. Any number of positions.
    """

    after_projection = True

    def __init__(self, dim: int, config: ReductionConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention_maps = nn.ModuleList(
            [
                nn.Conv2d(dim, dim, 1, groups=GROUPS, bias=False),
                nn.Conv2d(dim, config.tokens, 1, bias=False),
            ]
        )
        self.feat_conv = nn.Conv2d(dim, dim, 1, groups=GROUPS, bias=False)
        for layer in (*self.attention_maps, self.feat_conv):
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Reduced:
        a = _columns(self.norm(x))
        for convolution in self.attention_maps:
            a = convolution(a)
        maps = _full(a.flatten(2)).softmax(2)
        values = _full(self.feat_conv(_columns(x)).flatten(2).transpose(1, 2))
        return _weigh(maps, values)


class PaperReduction(nn.Module):
    """As Eq 6 prints it: on the tower's tokens z (b, h·w, c), before the projection.

    Z_k = AvgPool(Conv_k(z) ⊙ z), Conv_k being map k of one stack of two convolutions with a GELU between: taken
    literally, weights shared across all k would make all tokens equal (spec D13). A square grid of positions.
    """

    after_projection = False

    def __init__(self, width: int, config: ReductionConfig) -> None:
        super().__init__()
        kernel, pad = config.kernel, config.kernel // 2
        self.attention_maps = nn.Sequential(
            nn.Conv2d(width, config.tokens, kernel, padding=pad),
            nn.GELU(),
            nn.Conv2d(config.tokens, config.tokens, kernel, padding=pad),
        )
        self.gated = config.gate == "sigmoid"

    def forward(self, z: Tensor) -> Reduced:
        side = round(z.shape[1] ** 0.5)
        assert side * side == z.shape[1], f"{z.shape[1]} tokens are no square grid"
        maps = _full(self.attention_maps(z.transpose(1, 2).unflatten(2, (side, side))).flatten(2))
        if self.gated:
            maps = maps.sigmoid()
        maps = maps / z.shape[1]
        return _weigh(maps, _full(z))


def _weigh(maps: Tensor, values: Tensor) -> Reduced:
    # a model without memory has no autocast to switch off
    with nullcontext() if maps.is_meta else torch.autocast(maps.device.type, enabled=False):
        return Reduced(maps @ values, maps, values)


def _full(x: Tensor) -> Tensor:
    """Averages over positions are taken in float32 at least, whatever autocast made of the rest."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _columns(x: Tensor) -> Tensor:
    """(b, positions, c) → (b, c, positions, 1), what a 1×1 convolution reads whatever the grid."""
    return x.transpose(1, 2)[..., None]


def token_reduction(width: int, dim: int, config: ReductionConfig) -> ReleasedReduction | PaperReduction:
    """The layer that `config.kind` names, for a tower of `width` and a joint space of `dim`."""
    if config.kind == "released":
        return ReleasedReduction(dim, config)
    return PaperReduction(width, config)

"""What chance says of a training pair of a diffusion model: its level, its noise, whether it goes without condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Chance(NamedTuple):
    """level (b,) int64, noise (b, …) float32, gone (b,) bool: without condition."""

    level: Tensor
    noise: Tensor
    gone: Tensor

    def to(self, device: torch.device) -> Chance:
        return Chance(*(x.to(device) for x in self))


def chance(keys: Sequence[int], shape: Sequence[int], *, levels: int, drop: float) -> Chance:
    """On the CPU, each row a function of its key alone, so that neither its neighbours nor the number of processes
    matter; levels are uniform over 0 … `levels` − 1, and a share `drop` of the rows is gone."""
    level = torch.empty(len(keys), dtype=torch.int64)
    gone = torch.empty(len(keys), dtype=torch.bool)
    noise = torch.empty(len(keys), *shape)
    for row, key in enumerate(keys):
        generator = torch.Generator().manual_seed(key)
        level[row] = torch.randint(levels, (), generator=generator)
        gone[row] = torch.rand((), generator=generator) < drop
        noise[row] = torch.randn(tuple(shape), generator=generator)
    return Chance(level, noise, gone)

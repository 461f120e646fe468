"""Dropout whose mask is a function of (key, place, position): the same on every process, device and resumption.

A key is a number of the training pair in its epoch (design §4: seeded by (seed, epoch, id), never by rank). The bits
are a hash of key, place of the layer and index of the element, so there is no generator whose state could be lost, and
a row's mask depends neither on its neighbours in the batch nor on the padding behind it.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Odd constants with well-mixed bits: the golden ratio's fraction, and those of the 32-bit murmur3 finaliser.
_GOLDEN, _FIRST, _SECOND = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35
_LEVELS = 1 << 16  # two masks' worth of bits from each 32-bit hash


def pair_key(*parts: object) -> int:
    """63 bits of a hash of `parts`, e.g. (seed, epoch, id)."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _signed(constant: int) -> int:
    return constant - (1 << 32) if constant >= 1 << 31 else constant


def _mix_(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers in which every input bit moves every output bit; in place. The masks make the
    shifts of signed integers logical ones."""
    x ^= (x >> 16) & 0xFFFF
    x *= _signed(_FIRST)
    x ^= (x >> 13) & 0x7FFFF
    x *= _signed(_SECOND)
    x ^= (x >> 16) & 0xFFFF
    return x


def levels(keys: Tensor, place: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """A number for each element of a tensor of `shape` (b, …), int16, uniform over −32768 … 32767. keys (b,) int64."""
    count = 1
    for side in shape[1:]:
        count *= side
    half = (count + 1) // 2
    low = (keys & 0xFFFFFFFF).to(torch.int32)[:, None]
    high = (keys >> 32).to(torch.int32)[:, None]
    steps = torch.arange(half, dtype=torch.int32, device=keys.device) * _signed(_GOLDEN)
    # Both halves of the key enter: the second between two rounds, so that no two rows walk one sequence.
    hashed = _mix_(low + steps)
    hashed ^= high + _signed(place * _GOLDEN & 0xFFFFFFFF)
    return _mix_(hashed).view(torch.int16)[:, :count].view(shape)


def keep_mask(
    keys: Tensor, place: int, shape: torch.Size | tuple[int, ...], p: float
) -> tuple[Tensor, float]:
    """Which elements of a tensor of `shape` (b, …) stay, bool, and the probability that one does.

    `p` is rounded to 1/65536, and the returned probability is the rounded one's. keys (b,) int64.
    """
    dropped = round(p * _LEVELS)
    return levels(keys, place, shape) >= dropped - _LEVELS // 2, 1 - dropped / _LEVELS


class Dropout(nn.Module):
    """`layer(x (b, …), keys (b,))`; without keys torch's own generator decides. Nothing happens in evaluation.

    `place` tells the layers of a model apart: `number_places(model)` gives each its own.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.place = p, 0

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if keys is None:
            return F.dropout(x, self.p)
        mask, kept = keep_mask(keys, self.place, x.shape, self.p)
        return x * mask * (1 / kept)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def number_places(model: nn.Module) -> None:
    """Number the dropout layers of a model in the order of its definition, from 1."""
    layers = (layer for layer in model.modules() if isinstance(layer, Dropout))
    for place, layer in enumerate(layers, start=1):
        layer.place = place

"""A text tower over a batch: short texts do not pay for the padding of long ones, and one place stands for a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Tokens of one pass through the text tower: enough to fill a CPU, or a GPU, few enough to be of texts of one length.
# With gradients larger products pay.
TOKENS_ON_CPU, TOKENS_IN_TRAINING, TOKENS_ON_GPU = 256, 1024, 4096


def passes(mask: Tensor) -> tuple[tuple[Tensor, int], ...]:
    """Rows of a batch, in groups of similar length, and the length of each group; mask (B, n), B ≥ 1."""
    lengths = mask.sum(1).clamp(min=1)
    order = lengths.argsort(stable=True)
    tokens = TOKENS_IN_TRAINING if torch.is_grad_enabled() else TOKENS_ON_CPU
    tokens = tokens if mask.device.type == "cpu" else TOKENS_ON_GPU
    groups = lengths[order].cumsum(0) // tokens
    rows = order.split(groups.unique_consecutive(return_counts=True)[1].tolist())
    return tuple((group, int(lengths[group[-1]])) for group in rows)


def hidden_states(
    tower: Any, ids: Tensor, mask: Tensor, keys: Tensor | None, *, in_one_pass: bool = False
) -> Tensor:
    """(B, n, c) of `tower(ids, mask, keys)`, pass by pass; zeros behind a group's longest text."""
    # a graph that is being traced is for any number of texts
    if torch.compiler.is_compiling():
        return tower(ids, mask, keys)
    if not len(ids):
        return _of_no_text(tower, ids, mask, keys)
    if in_one_pass:
        return tower(ids, mask, keys)
    return by_length(
        mask,
        lambda rows, length: tower(
            ids[rows, :length], mask[rows, :length], None if keys is None else keys[rows]
        ),
    )


def by_length(mask: Tensor, states: Callable[[Tensor, int], Tensor]) -> Tensor:
    """(B, n, c) of `states(rows, length)`, each (rows, length, c), for texts of similar length; mask (B, n), B ≥ 1.
    Zeros behind a group's longest text."""
    parts, order = [], []
    for rows, length in passes(mask):
        parts.append(F.pad(states(rows, length), (0, 0, 0, mask.shape[1] - length)))
        order.append(rows)
    return torch.cat(parts)[torch.cat(order).argsort()]


def pooled_states(
    tower: Any,
    ids: Tensor,
    mask: Tensor,
    keys: Tensor | None,
    *,
    pooling: str,
    end: int,
    in_one_pass: bool = False,
) -> Tensor:
    """(B, c): the state that stands for each text, without those of the others being kept."""
    if torch.compiler.is_compiling() or in_one_pass or not len(ids):
        hidden = hidden_states(tower, ids, mask, keys, in_one_pass=True)
        return at_place(hidden, ids, mask, pooling=pooling, end=end)
    parts, order = [], []
    for rows, length in passes(mask):
        of_rows, seen = ids[rows, :length], mask[rows, :length]
        hidden = tower(of_rows, seen, None if keys is None else keys[rows])
        parts.append(at_place(hidden, of_rows, seen, pooling=pooling, end=end))
        order.append(rows)
    return torch.cat(parts)[torch.cat(order).argsort()]


def _of_no_text(tower: Any, ids: Tensor, mask: Tensor, keys: Tensor | None) -> Tensor:
    """(0, n, c), of a text that is thrown away: encoders of transformers refuse an empty batch, and a process without a
    share of a step has parameters that other processes wait for."""
    one = (1, max(ids.shape[1], 1))
    hidden = tower(ids.new_zeros(one), mask.new_ones(one), None if keys is None else keys.new_zeros(1))
    return hidden[:0]


def at_place(hidden: Tensor, ids: Tensor, mask: Tensor, *, pooling: str, end: int) -> Tensor:
    """hidden (B, n, c) → (B, c) where `pooling` says."""
    return hidden[torch.arange(ids.shape[0], device=ids.device), pooled_place(ids, mask, pooling, end)]


def pooled_place(ids: Tensor, mask: Tensor, pooling: Literal["last", "eot", "cls"] | str, end: int) -> Tensor:
    """The position (B,) that stands for a text; 0 for one of padding alone. `end` is the token that ends one."""
    last = mask.sum(1).clamp(min=1) - 1
    if pooling == "cls":
        return torch.zeros_like(last)
    if pooling == "eot":
        ends = mask & (ids == end)
        return torch.where(ends.any(1), ends.int().argmax(1), last)
    return last

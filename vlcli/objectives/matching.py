"""Fine-grained ranking: is this text of this image? Hard negatives, and the loss of both heads (R2D2 §3.2, App. C)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Chosen(NamedTuple):
    """One negative of every row: its column (n,), and whether the row has any (n,)."""

    column: Tensor
    found: Tensor


def hard_negatives(logits: Tensor, positives: Tensor, draws: Tensor | None = None) -> Chosen:
    """The negative of each row: the one of the highest logit, or, with draws (n,) uniform in [0, 1), one drawn in
    proportion to the softmax over the negatives.

    logits and positives bool (n, N). A row of positives alone has none: its column is 0 and `found` says no.
    """
    found = ~positives.all(1)
    if not logits.numel():  # a process without rows
        return Chosen(torch.zeros_like(found, dtype=torch.long), found)
    logits = logits.detach().double().masked_fill(positives, -torch.inf)
    if draws is None:
        return Chosen(torch.where(found, logits.argmax(1), 0), found)
    chances = logits.masked_fill(~found[:, None], 0.0).softmax(1).cumsum(1)
    # beyond `right` there is no column of no chance; the last of a row is its sum, which rounding keeps from being 1
    column = torch.searchsorted(chances, draws.double()[:, None] * chances[:, -1:], right=True)[:, 0]
    return Chosen(torch.where(found, column.clamp(max=logits.shape[1] - 1), 0), found)


class Sum(NamedTuple):
    """A loss before it is divided: over the rows of all processes it is a mean only when both are summed."""

    value: Tensor  # ()
    weight: Tensor  # ()


def matching_loss(
    text_logits: Tensor,
    image_logits: Tensor,
    labels: Tensor,
    counted: Tensor | None = None,
    *,
    positive_weight: float = 1.0,
) -> Sum:
    """½ [CE(g(h_T), y) + CE(g(h_I), y)] (R2D2 Eq 3). Logits (p, 2), labels (p,) 0 or 1; counted (p,) bool leaves pairs
    out. A pair weighs 1, a positive `positive_weight`."""
    wide = torch.promote_types(text_logits.dtype, torch.float32)
    both = F.cross_entropy(text_logits.to(wide), labels, reduction="none")
    both = (both + F.cross_entropy(image_logits.to(wide), labels, reduction="none")) / 2
    weight = torch.where(labels == 1, positive_weight, 1.0).to(both.dtype)
    if counted is not None:
        weight = weight * counted
        both = both.masked_fill(~counted, 0.0)
    return Sum((weight * both).sum(), weight.sum())

"""Masked words: which ones are hidden, and the loss of guessing them (R2D2 §3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.objectives.matching import Sum


def masked_places(maskable: Tensor, scores: Tensor, share: float) -> Tensor:
    """Which places of maskable (b, n) are hidden, bool: ⌊share · k + ½⌋ of a row's k, at least one where there is one.

    Those with the highest scores (b, n), which the caller draws; of equal ones the first.
    """
    count = (share * maskable.sum(1).double() + 0.5).floor().long()
    count = torch.where(maskable.any(1), count.clamp(min=1), 0)
    order = scores.masked_fill(~maskable, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(1) < count[:, None]) & maskable


def masked_language_loss(logits: Tensor, words: Tensor) -> Sum:
    """Σ CE over masked places, and their number: logits (m, vocabulary), words (m,) what stood there."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits, words, reduction="sum")
    return Sum(total, torch.tensor(float(len(words)), dtype=total.dtype, device=total.device))

"""Captioning: −Σ log p(y_t | y_<t, picture), with teacher forcing (R2D2 App. C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.objectives.matching import Sum


def told(ids: Tensor, mask: Tensor) -> Tensor:
    """(b, n − 1) which places of ids (b, n) have a token behind them that is to be learnt: those of texts that say
    anything between the tokens that begin and end them, up to their end."""
    return mask[:, 1:] & (mask.sum(1) > 2)[:, None]


def caption_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Sum:
    """Cross-entropy of logits (t, vocabulary) against tokens (t,), summed, and how many there are.

    `label_smoothing` is the share of each target that is spread over the vocabulary: 0 in the paper, which says nothing
    of it; BLIP has 0.1.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    value = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    return Sum(value, torch.tensor(float(len(targets)), dtype=value.dtype, device=value.device))

"""What momentum encoders give: a queue of their features, and targets softer than labels (R2D2 Eq 4–5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlcli.objectives.contrastive import positive_targets


@torch.no_grad()
def follow_(followers: Sequence[Tensor], leaders: Sequence[Tensor], momentum: float) -> None:
    """θ_m ← m θ_m + (1 − m) θ, in place."""
    torch._foreach_lerp_(list(followers), list(leaders), 1 - momentum)


class Queue:
    """The newest features of both sides, and what each weighs: 1 when it comes, `decay` of that an iteration later.

    `images` and `texts` (size, d), `codes` (size, k) the identities of their pairs, `weights` (size,), 0 where nothing
    has come yet. A ring: the newest take the place of the oldest, whatever the batch's size.
    """

    def __init__(self, size: int, dim: int, identities: int, *, decay: float, device: torch.device) -> None:
        self.size, self.decay = size, decay
        self.images = torch.zeros(size, dim, device=device)
        self.texts = torch.zeros(size, dim, device=device)
        self.codes = torch.full((size, identities), -1, device=device)
        self.weights = torch.zeros(size, device=device)
        self.filled = torch.zeros(size, dtype=torch.bool, device=device)
        self.next = 0

    def push(self, images: Tensor, texts: Tensor, codes: Tensor) -> None:
        """One iteration's features (N, d) of both sides and codes (k, N), in the order of the global batch."""
        new = min(len(images), self.size)
        places = (self.next + torch.arange(new, device=self.weights.device)) % self.size
        self.weights *= self.decay
        self.images[places] = images[-new:].to(self.images.dtype)
        self.texts[places] = texts[-new:].to(self.texts.dtype)
        self.codes[places] = codes.T[-new:]
        self.weights[places] = 1.0
        self.filled[places] = True
        self.next = (self.next + new) % self.size

    def out_of_play(self, codes: Tensor) -> Tensor:
        """Which columns take no part, bool (n, size): empty ones, and those that show the row's own pair again, which
        are no negatives and, y being 0 in the queue, no positives. codes (k, n) are the rows'."""
        return positive_targets(*zip(codes, self.codes.T, strict=True)) | ~self.filled

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _KEPT:
            found = state[name]
            setattr(self, name, found.to(self.weights.device) if isinstance(found, Tensor) else found)


_KEPT = ("images", "texts", "codes", "weights", "filled", "next")


def target_distillation_loss(
    logits: Tensor,
    teacher: Tensor,
    positives: Tensor,
    excluded: Tensor,
    weights: Tensor,
    *,
    alpha: float = 0.4,
    count: float | None = None,
) -> Tensor:
    """−(1/n) Σ_i Σ_j w_j ŷ_ij log s_ij, ŷ = α · softmax(teacher) + (1 − α) · y (R2D2 Eq 4–5, spec D17).

    logits and teacher (n, C) over the columns [current batch; queue]; positives bool (n, C), of which y is the same
    share each; excluded bool (n, C) columns that take no part in either softmax; weights (C,). The teacher has no
    gradient. Every row has a positive. `count`, where given, is what the sum over rows is divided by instead of n.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    y = positives.to(wide)
    y = y / y.sum(1, keepdim=True)
    soft = teacher.detach().to(wide).masked_fill(excluded, -torch.inf).softmax(1)
    target = alpha * soft + (1 - alpha) * y
    log_s = logits.to(wide).masked_fill(excluded, -torch.inf).log_softmax(1).masked_fill(excluded, 0.0)
    return -(weights * target * log_s).sum() / (len(logits) if count is None else count)

"""The contrastive objective over any similarity, with several positives and label smoothing."""

from __future__ import annotations

import torch
from torch import Tensor

from vlcli.objectives.late_interaction import Similarity


def positive_targets(*rows_and_columns: tuple[Tensor, Tensor]) -> Tensor:
    """Which text is a positive of which image: true where any of the identities agree.

    Each argument is a pair of integer codes, (b,) of the images' rows and (B,) of the texts' rows; a negative code
    never matches. The usual three are image_id, the text itself and the group (design §2): a batch with the same
    caption twice must not call one of them a negative. Returns bool (b, B).
    """
    assert rows_and_columns, "positives need at least one identity"
    target = None
    for rows, columns in rows_and_columns:
        equal = (rows[:, None] == columns[None, :]) & (rows[:, None] >= 0)
        target = equal if target is None else target | equal
    assert target is not None
    return target


def soft_cross_entropy(logits: Tensor, positives: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over rows of CE(p, softmax(logits)), p = 1/#positives on positives (FILIP App. A.2), then
    p ← (1 − ε) p + ε/N (ALIGN §5). logits (n, N); positives bool (n, N) with at least one in each row."""
    p = positives.float()
    p = p / p.sum(1, keepdim=True)
    if smoothing:
        p = (1 - smoothing) * p + smoothing / logits.shape[1]
    return -(p * logits.float().log_softmax(1)).sum(1).mean()


def contrastive_loss(
    rows: Similarity,
    columns: Similarity,
    scale: Tensor,
    row_positives: Tensor,
    column_positives: Tensor,
    *,
    reduction: str = "mean",
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """InfoNCE in both directions (Wukong Eq 1–4, FILIP Eq 1–5, ALIGN Eq 1–2).

    rows: local images (b) against all texts (N), of which i2t is used; columns: all images (N) against local texts
    (b), of which t2i is used. On one process both are the same object. scale = 1/τ. row_positives (b, N) image→text;
    column_positives (N, b). `reduction`: "mean" of the two directions (Wukong, FILIP) or their "sum" (ALIGN).
    Returns {"contrastive_loss"} and the two directions without gradient as "i2t", "t2i".
    """
    i2t = soft_cross_entropy(scale * rows.i2t, row_positives, smoothing)
    t2i = soft_cross_entropy(scale * columns.t2i.T, column_positives.T, smoothing)
    total = i2t + t2i
    if reduction == "mean":
        total = total / 2
    return {"contrastive_loss": total, "i2t": i2t.detach(), "t2i": t2i.detach()}


def total_loss(parts: dict[str, Tensor], weights: dict[str, float] | None = None) -> Tensor:
    """Sum of every `*_loss` entry times its weight (1 where none is given)."""
    losses = [
        (weights or {}).get(name, 1.0) * value for name, value in parts.items() if name.endswith("_loss")
    ]
    assert losses, "an objective returned no loss"
    return torch.stack(losses).sum()

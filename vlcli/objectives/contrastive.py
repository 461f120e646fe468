"""The contrastive objective over any similarity: several positives, label smoothing, a share of the negatives."""

from __future__ import annotations

import functools
import itertools
import math

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


def collisions(codes: Tensor) -> int:
    """How many (image i, text j), i ≠ j, of a batch are positives: duplicate captions, images and groups.

    codes (k, N) are the identities as `positive_targets` compares them, each below N, negative where there is none.
    Counted from the sizes of the sets of equal pairs, |A ∪ B ∪ C| = |A| + |B| + |C| − |A ∩ B| − … + |A ∩ B ∩ C|,
    which takes no (N, N).
    """
    codes, total = codes.cpu(), 0
    n = codes.shape[1]
    assert len(codes) * math.log2(max(n, 2)) < 63, "the codes of a pair do not fit one integer"
    for size in range(1, len(codes) + 1):
        for chosen in itertools.combinations(codes, size):
            both = functools.reduce(lambda key, row: key * n + row, chosen)
            known = torch.stack(chosen).amin(0) >= 0
            counts = both[known].unique(return_counts=True)[1]
            total += (1 if size % 2 else -1) * int((counts * (counts - 1)).sum())
    return total


def kept_negatives(positives: Tensor, first: int, seats: Tensor, share: float) -> Tensor:
    """Which columns stay in each row's softmax when a share of the negatives does: bool (n, N), positives always.

    seats (N,) is a permutation: where each pair of the global batch sits in a circle. Row r is of pair first + r,
    and keeps the ⌈share · #negatives⌉ of its negatives that sit next behind it. Over random circles each set of that
    many negatives is equally likely, every pair is a negative of as many others, and no row depends on the process
    that computes it. positives bool (n, N). ALIGN Table 8, rows 5 and 6; how it chose its negatives is not told.
    """
    n, N = positives.shape
    behind = (seats[None] - seats[first : first + n, None]) % N  # (n, N), all different within a row
    behind = behind.masked_fill(positives, N)
    count = torch.ceil((share * (~positives).sum(1).double()).round(decimals=9)).long()
    farthest = behind.sort(1).values.gather(1, (count[:, None] - 1).clamp(min=0))
    return positives | (behind <= farthest)


def soft_cross_entropy(
    logits: Tensor,
    positives: Tensor,
    smoothing: float = 0.0,
    kept: Tensor | None = None,
    *,
    count: float | None = None,
) -> Tensor:
    """Mean over rows of CE(p, softmax(logits)), p = 1/#positives on positives (FILIP App. A.2), then
    p ← (1 − ε) p + ε/N (ALIGN §5). logits (n, N); positives bool (n, N) with at least one in each row; kept bool
    (n, N), where given, is what each row's softmax and its N are over. `count`, where given, is what the sum over rows
    is divided by instead of n."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    p = positives.to(logits.dtype)
    p = p / p.sum(1, keepdim=True)
    if kept is None:
        log_q = logits.log_softmax(1)
        uniform: Tensor | float = 1 / logits.shape[1]
    else:
        log_q = logits.masked_fill(~kept, -torch.inf).log_softmax(1).masked_fill(~kept, 0.0)
        uniform = 1 / kept.sum(1, keepdim=True).to(logits.dtype)
    if smoothing:
        p = (1 - smoothing) * p + smoothing * uniform
    losses = -(p * log_q).sum(1)
    return losses.mean() if count is None else losses.sum() / count


def contrastive_loss(
    rows: Similarity,
    columns: Similarity,
    scale: Tensor,
    row_positives: Tensor,
    column_positives: Tensor,
    *,
    row_kept: Tensor | None = None,
    column_kept: Tensor | None = None,
    reduction: str = "mean",
    smoothing: float = 0.0,
    count: float | None = None,
) -> dict[str, Tensor]:
    """InfoNCE in both directions (Wukong Eq 1–4, FILIP Eq 1–5, ALIGN Eq 1–2).

    rows: local images (b) against all texts (N), of which i2t is used; columns: all images (N) against local texts
    (b), of which t2i is used. On one process both are the same object. scale = 1/τ. row_positives (b, N) image→text;
    column_positives (N, b). row_kept and column_kept, of the same shapes, are what takes part where not all negatives
    do. `reduction`: "mean" of the two directions (Wukong, FILIP) or their "sum" (ALIGN). `count`, where given, is what
    sums over local rows are divided by instead of b.
    Returns {"contrastive_loss"} and the two directions without gradient as "i2t", "t2i".
    """
    i2t = soft_cross_entropy(scale * rows.i2t, row_positives, smoothing, row_kept, count=count)
    t2i = soft_cross_entropy(
        scale * columns.t2i.T,
        column_positives.T,
        smoothing,
        None if column_kept is None else column_kept.T,
        count=count,
    )
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

"""Features with known vectors, and the slow, literal forms of what the library computes in tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vlcli.objectives.late_interaction import late_interaction


class Features(NamedTuple):
    """What retrieval needs of ImageTokens and TextTokens."""

    tokens: torch.Tensor | None
    pooled: torch.Tensor | None

    def rows(self, index) -> Features:
        return Features(*(None if part is None else part[index] for part in self))


class Scores(NamedTuple):
    i2t: torch.Tensor
    t2i: torch.Tensor


def pooled(vectors) -> Features:
    return Features(None, torch.as_tensor(np.asarray(vectors), dtype=torch.float32))


def dot(image: Features, text: Features) -> Scores:
    score = image.pooled @ text.pooled.T
    return Scores(score, score)


def two_way(image: Features, text: Features) -> Scores:
    """Two matrices that differ, as those of late interaction do."""
    score = image.pooled @ text.pooled.T
    return Scores(score, score.square() - 0.3 * score)


def shaky(image: Features, text: Features) -> Scores:
    """`dot`, give or take what tiles of another shape change in float32, and a little more."""
    score = image.pooled @ text.pooled.T
    score = score + sum(len(side.pooled) * 7919 % 5 - 2 for side in (image, text)) * 1e-7
    return Scores(score, score)


def literal_rank(scores, positive: set[int]) -> int:
    """Sort the candidates, wrong ones first among equals, and walk down to the first right one."""
    order = sorted(range(len(scores)), key=lambda c: (-float(scores[c]), c in positive))
    return 1 + next(place for place, c in enumerate(order) if c in positive)


def literal_recall(scores, positives: list[set[int]]) -> dict[str, float]:
    """% of the queries that have positives with one of these among the first K; O(n²) and by the book."""
    placed = [literal_rank(row, right) for row, right in zip(scores, positives, strict=True) if right]
    return {f"R@{k}": 100 * sum(place <= k for place in placed) / len(placed) for k in (1, 5, 10)}


def tokenwise(image: Features, text: Features) -> Scores:
    return Scores(*late_interaction(image.tokens, text.tokens, torch.ones(text.tokens.shape[:2]).bool()))

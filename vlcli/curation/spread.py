"""Mean, deviation and median of whole numbers, exactly, however many there are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Spread:
    """How often each value came. N captions of different lengths have N²/2 tokens: the table stays small."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, values: NDArray[Any]) -> None:
        found, counts = np.unique(values, return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._counts[value] += count

    def merge(self, other: Spread) -> None:
        """Count in what another has counted."""
        self._counts.update(other._counts)

    @property
    def number(self) -> int:
        return self._counts.total()

    def table(self) -> list[tuple[int, int]]:
        """(value, how often), by value."""
        return sorted(self._counts.items())

    def shown(self) -> dict[str, float | int | None]:
        """mean, std (of all values, not of a sample), median, min, max; None where nothing was counted."""
        n = self.number
        if not n:
            return dict.fromkeys(("mean", "std", "median", "min", "max"))
        total = sum(value * count for value, count in self._counts.items())
        squares = sum(value * value * count for value, count in self._counts.items())
        return {
            "mean": total / n,
            "std": math.sqrt(n * squares - total * total)
            / n,  # whole numbers under the root: nothing cancels
            "median": self._median(n),
            "min": min(self._counts),
            "max": max(self._counts),
        }

    def _median(self, n: int) -> float:
        """The middle value, or the mean of the two middle ones."""
        below, middle = 0, list[int]()
        for value, count in self.table():
            below += count
            while len(middle) < 2 and below > ((n - 1) // 2, n // 2)[len(middle)]:
                middle.append(value)
        return sum(middle) / 2


class Bins:
    """Counts between fixed edges: edge ≤ value < next edge; the last bin has no upper end."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = list(edges)
        self._counts = np.zeros(len(self._edges), np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """`values` are not below the first edge."""
        places = np.searchsorted(self._edges, values, side="right") - 1
        self._counts += np.bincount(places, minlength=len(self._edges))

    def merge(self, other: Bins) -> None:
        """Count in what another, with the same edges, has counted."""
        self._counts += other._counts

    def shown(self) -> list[dict[str, Any]]:
        ends = [*self._edges[1:], None]
        return [
            {"from": start, "below": end, "count": int(count)}
            for start, end, count in zip(self._edges, ends, self._counts, strict=True)
        ]

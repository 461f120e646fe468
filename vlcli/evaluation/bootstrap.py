"""Percentile bootstrap intervals for numbers that are ratios of sums over independent units.

A unit is what was sampled independently: a labelled image, or an image with all its captions. Resampling
units, not queries, keeps the five captions of one picture together; they are not five independent
observations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

LEVEL = (2.5, 97.5)


def resamples(units: int, count: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """`count` times: how often each of the `units` was drawn, with replacement.  (units,)"""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(rng.integers(units, size=units), minlength=units).astype(np.float64)


def interval(
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    units: int,
    *,
    count: int,
    seed: int,
) -> list[list[float]]:
    """95 % percentile interval of each number that `statistic(weights of the units)` returns, as [lo, hi].

    A resample in which a ratio has no denominator gives NaN and is left out of that number's percentiles.
    """
    values = np.array([statistic(weights) for weights in resamples(units, count, seed)])  # (count, numbers)
    low, high = np.nanpercentile(values, LEVEL, axis=0)
    return [[round(float(a), 4), round(float(b), 4)] for a, b in zip(low, high, strict=True)]


def components(left: int, right: int, edges: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Connected components of a two-sided graph: a unit number for each `left` node, then for each
    `right` one.

    With one image per text these are the images; where texts are shared, what hangs together is one unit.
    """
    parent = list(range(left + right))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for i, j in edges:
        a, b = root(i), root(left + j)
        if a != b:
            parent[max(a, b)] = min(a, b)
    return np.unique([root(node) for node in range(left + right)], return_inverse=True)[1].astype(np.int64)

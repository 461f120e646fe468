"""KID, the kernel inception distance [Bińkowski et al. 2018, §3]: the squared maximum mean discrepancy of two sets of
vectors under the kernel (x·y/d + 1)³, without bias whatever the number of pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DEGREE = 3
LARGEST = 1000  # pictures of a subset, as the paper's; fewer where there are not twice as many


class Kid(NamedTuple):
    """Over subsets of both sets: the mean and the standard deviation (of a sample)."""

    mean: float
    deviation: float
    subsets: int
    size: int  # pictures of a subset, drawn without replacement


def squared_mmd(x: Any, y: Any) -> float:
    """The unbiased estimate for x (n, d) and y (m, d), n and m at least 2; it may be negative."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)
    within = (_kernel(x, x, twins=False) / (n * (n - 1))) + (_kernel(y, y, twins=False) / (m * (m - 1)))
    return float(within - 2 * _kernel(x, y) / (n * m))


def _kernel(x: Floats, y: Floats, *, twins: bool = True) -> float:
    """The sum of the kernel over all pairs; without `twins`, over those of different places."""
    values: Floats = (x @ y.T / x.shape[1] + 1) ** DEGREE
    return float(values.sum() - (0 if twins else np.trace(values)))


def kid(x: Any, y: Any, *, subsets: int = 100, size: int | None = None, seed: int = 0) -> Kid:
    """`squared_mmd` over random subsets of x (n, d) and y (m, d), arrays that may lie in files.

    size: LARGEST, or half of the smaller set where that is less, so that subsets differ; at least 2.
    """
    smaller = min(len(x), len(y))
    assert smaller >= 2, "two pictures of each at least"
    size = max(2, min(LARGEST, smaller // 2)) if size is None else size
    rng = np.random.default_rng(seed)
    values = [
        squared_mmd(
            x[np.sort(rng.choice(len(x), size, replace=False))],
            y[np.sort(rng.choice(len(y), size, replace=False))],
        )
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(values)), float(np.std(values, ddof=1)) if subsets > 1 else 0.0, subsets, size)

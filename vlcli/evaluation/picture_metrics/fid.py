"""FID, the Fréchet inception distance [Heusel et al. 2017]: between two Gaussians that have the means and covariances
of two sets of vectors. It falls with the number of pictures, so it compares sets of one size in one net only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Moments:
    """Mean and covariance of vectors that come in batches, in float64; d² numbers whatever their count.

    A batch is centred before it is squared, and joined to what came before by its mean [Chan et al. 1983]: nothing is
    lost where means are large.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(dim)
        self._scatter: Floats = np.zeros((dim, dim))  # Σ (x − mean)(x − mean)ᵀ

    def add(self, vectors: Any) -> None:
        """vectors (b, d)."""
        x = np.asarray(vectors, np.float64)
        if not len(x):
            return
        mean = x.mean(0)
        apart, total = mean - self.mean, self.count + len(x)
        centred = x - mean
        self._scatter += centred.T @ centred + np.outer(apart, apart) * (self.count * len(x) / total)
        self.mean += apart * (len(x) / total)
        self.count = total

    @property
    def covariance(self) -> Floats:
        """(d, d), unbiased; of at least two vectors."""
        assert self.count > 1, "two vectors at least"
        return self._scatter / (self.count - 1)


def moments(batches: Iterable[Any], dim: int) -> Moments:
    """The moments of all batches."""
    found = Moments(dim)
    for batch in batches:
        found.add(batch)
    return found


def frechet_distance(x: Moments, y: Moments) -> float:
    """|μx − μy|² + tr(Σx + Σy − 2 (Σx Σy)^½).

    The trace of the root is the sum of the roots of the eigenvalues of Σx^½ Σy Σx^½, which is symmetric: real numbers
    throughout, also where there are fewer vectors than dimensions. Below zero there is rounding alone.
    """
    values, vectors = np.linalg.eigh(x.covariance)
    root = vectors * np.sqrt(
        np.maximum(values, 0)
    )  # Σx^½ up to a rotation, which leaves the eigenvalues alone
    shared = np.linalg.eigvalsh(root.T @ y.covariance @ root)
    apart = x.mean - y.mean
    trace = np.trace(x.covariance) + np.trace(y.covariance) - 2 * np.sqrt(np.maximum(shared, 0)).sum()
    return float(apart @ apart + trace)

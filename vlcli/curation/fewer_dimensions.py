"""Vectors in fewer dimensions, in which no two seem farther apart than they are.

On orthonormal axes P, with what a vector x of length 1 has beside them as one number more, ρ(x) = √(1 - |Px|²), Cauchy
and Schwarz say of every pair  x·y ≤ Px·Py + ρ(x)ρ(y).  So a pair whose product is below a bound there is below it in
all dimensions too, and need not be looked at.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np

SHARE = 4  # one dimension of so many is kept
FEWEST = 32  # dimensions that are worth it
APART = 3  # times the squared distance at the bound that members of one cluster must be apart on the axes
ROUNDING = 1e-6  # more than float32 loses of a squared length, so that ρ is never too small


def principal(differences: np.ndarray, number: int) -> np.ndarray:
    """differences (n, d) → (d, number) float32: orthonormal axes along which their squares are largest."""
    scatter = (differences.T @ differences).astype(np.float64)
    return np.linalg.eigh(scatter)[1][:, ::-1][:, :number].astype(np.float32)


def axes_for(within: np.ndarray, bound: float) -> np.ndarray | None:
    """(d, m) axes for a bound on the cosine; None where they would not tell vectors apart, or save little.

    within (n, d): vectors less the centroid of each.
    """
    number = within.shape[1] // SHARE
    if number < FEWEST:
        return None
    axes = principal(within, number)
    apart = 2 * ((within @ axes) ** 2).sum(1).mean()  # of two vectors around one centroid, squared
    return axes if apart >= APART * 2 * (1 - bound) else None


class FewerDimensions:
    """(n, m + 1) float32 in a temporary file, written row by row in order, and read at any rows."""

    def __init__(self, axes: np.ndarray, rows: int) -> None:
        self._axes = axes
        shape = (rows, axes.shape[1] + 1)
        with tempfile.TemporaryFile(prefix="vlcli-dedup-") as file:
            # room is taken first: a full disk would end the process when a page of the map is written
            os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * np.dtype(np.float32).itemsize)
            self._values = np.memmap(file, np.float32, "r+", shape=shape)

    def put(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """vectors (m, d) of length 1 or 0, at `rows`."""
        found = vectors @ self._axes
        beside = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", found, found)
        self._values[rows, :-1] = found
        self._values[rows, -1] = np.sqrt(np.maximum(beside, 0) + ROUNDING)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """rows (m,) → (m, dimensions + 1)."""
        return np.asarray(self._values[rows])

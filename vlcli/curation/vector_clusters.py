"""The clusters of vectors: k-means learnt on a sample, and each vector's nearest ones."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlcli.curation.embeddings import Vectors
from vlcli.curation.fewer_dimensions import principal
from vlcli.errors import UsageError

PER_CLUSTER = (
    39  # vectors that a cluster is learnt from, at least; with fewer vectors there are fewer clusters
)
SAMPLED = 39  # and at most
ROUNDS = 5
LEARNT = 32  # dimensions in which the rounds are made
VARIED = 32_768  # vectors that principal axes are learnt from

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Clusters:
    """ALIGN's numbers. `clusters` = 0 compares all with all."""

    clusters: int = 4096
    nearest: int = 10
    shared: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.shared <= self.nearest:
            raise UsageError(f"--shared {self.shared} is not within 1 and --nearest {self.nearest}")

    def number(self, vectors: int) -> int:
        """Clusters for so many vectors; 0 where so few would be left that all pairs share `shared` of them anyway."""
        found = min(self.clusters, vectors // PER_CLUSTER)
        return found if found > 2 * self.nearest - self.shared else 0


class Centroids:
    """k-means on a sample of at most SAMPLED vectors a cluster. Raises UsageError without faiss.

    The rounds are made in the LEARNT dimensions along which the sample varies most, where they cost an eighth at 512
    dimensions; the centroids are the means of all dimensions. Only what the clusters are is approximate by this, not
    which of them are nearest to a vector.

    `within` (m, d) is the sample less the centroid of each: how members of one cluster differ.
    """

    def __init__(self, vectors: Vectors, number: int, seed: int, progress: Progress) -> None:
        faiss = needed("faiss")
        rng = np.random.default_rng(seed)
        size = min(len(vectors), SAMPLED * number)
        sample = vectors.take(np.sort(rng.choice(len(vectors), size, replace=False)))
        flat = sample
        if vectors.dim > 2 * LEARNT:
            some = rng.permutation(size)[:VARIED]
            flat = sample @ principal(sample[some] - sample[some].mean(0), LEARNT)
        learner = faiss.Kmeans(
            flat.shape[1], number, niter=ROUNDS, seed=seed, max_points_per_centroid=SAMPLED
        )
        learner.train(flat)
        home = learner.index.search(flat, 1)[1][:, 0]
        self.values = _means(sample, home, number)  # (k, d)
        some = rng.permutation(size)[:VARIED]
        self.within = sample[some] - self.values[home[some]]
        self._index = faiss.IndexFlatL2(vectors.dim)
        self._index.add(self.values)
        progress("learning clusters", size)

    def nearest(self, found: np.ndarray, number: int) -> np.ndarray:
        """found (m, d) → (m, number) int32: the clusters by Euclidean distance."""
        return self._index.search(found, number)[1].astype(np.int32)


def _means(sample: np.ndarray, home: np.ndarray, number: int) -> np.ndarray:
    """(number, d) the mean of each cluster's members; zeros, which are near no vector of length 1, where none is."""
    order = np.argsort(home, kind="stable")
    values, starts, counts = np.unique(home[order], return_index=True, return_counts=True)
    means = np.zeros((number, sample.shape[1]), np.float32)
    means[values] = np.add.reduceat(sample[order], starts, axis=0) / counts[:, None]
    return means


def needed(module: str, who: str = "near-duplicates among vectors need") -> Any:
    """A module of the extra `dedup`. Raises UsageError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{who} {module}", remedy="pip install 'vlcli[dedup]'") from None

"""Near-duplicates among vectors, as ALIGN removed them (Jia et al. 2021, Appendix A).

k-means clusters; the nearest 10 clusters of each image; a bucket for every 3 of these 10, so that two images share a
bucket exactly when they share 3 clusters; and of such candidates those whose cosine is above 0.975.

The buckets are never made: a pair must pass both tests, and here the cosine comes first. Vectors that share a cluster
are multiplied as a matrix, and the few pairs above the bound are asked for their clusters. Two sets of 10 that share 3
share one among any 8 of each as well, if the 8 are chosen by one order of all clusters; so each vector is listed under
its 8 rarest clusters alone. Nothing is lost by either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vlcli.curation.bounds import Bound
from vlcli.curation.embeddings import Vectors
from vlcli.errors import UsageError

TILE = 2048  # vectors on each side of one product
SLACK = 1e-4  # what float32 may be off before the exact product
PER_CLUSTER = (
    39  # vectors that a cluster is learnt from, at least; with fewer vectors there are fewer clusters
)
SAMPLED = 64  # and at most
ROUNDS = 10
SEED = 0

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b (m,) int64, cosine (m,) float64
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


def near_vectors(
    vectors: Vectors,
    bound: Bound,
    clusters: Clusters,
    others: Vectors | None = None,
    *,
    seed: int = SEED,
    progress: Progress = lambda what, rows: None,
) -> Iterator[Pairs]:
    """Places of `vectors` and of `others` whose cosine is within `bound`, each pair once; without `others` a < b.

    The clusters are learnt from `vectors`. Raises UsageError without faiss, and where dimensions differ.
    """
    if others is not None and len(others) and len(vectors) and others.dim != vectors.dim:
        raise UsageError(f"vectors of {vectors.dim} dimensions cannot be compared with {others.dim}")
    target = vectors if others is None else others
    if not len(vectors) or not len(target):
        return
    compare = _Compare(vectors, target, bound, within=others is None)
    number = clusters.number(len(vectors))
    if not number:
        for start in range(0, len(vectors), TILE):
            rows = np.arange(start, min(start + TILE, len(vectors)))
            yield from compare.lists(rows, np.arange(start if others is None else 0, len(target)))
            progress("comparing", len(rows))
        return
    centroids = _learn(vectors, number, seed)
    left = _nearest(vectors, centroids, clusters.nearest, progress)
    right = left if others is None else _nearest(target, centroids, clusters.nearest, progress)
    order = _rarity(number, left, right)
    keep = clusters.nearest - clusters.shared + 1
    one = _listed(left, order, keep, number)
    two = one if others is None else _listed(right, order, keep, number)
    for cluster in range(number):
        a, b = one(cluster), two(cluster)
        if not len(a) or not len(b) or (others is None and len(a) < 2):
            progress("comparing", 0)
            continue
        for x, y, cosine in compare.lists(a, b):
            ours = _found_here(left[x], right[y], order, cluster, clusters.shared)
            if ours.any():
                yield x[ours], y[ours], cosine[ours]


def _learn(vectors: Vectors, number: int, seed: int) -> np.ndarray:
    """(k, d) centroids, by k-means over at most SAMPLED vectors a cluster."""
    faiss = _faiss()
    rng = np.random.default_rng(seed)
    size = min(len(vectors), SAMPLED * number)
    sample = vectors.take(np.sort(rng.choice(len(vectors), size, replace=False)))
    learner = faiss.Kmeans(vectors.dim, number, niter=ROUNDS, seed=seed, max_points_per_centroid=SAMPLED)
    learner.train(sample)
    return learner.centroids


def _nearest(vectors: Vectors, centroids: np.ndarray, nearest: int, progress: Progress) -> np.ndarray:
    """(n, nearest) int32: each vector's clusters by Euclidean distance."""
    index = _faiss().IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    found = np.empty((len(vectors), nearest), np.int32)
    for start in range(0, len(vectors), 8192):
        rows = np.arange(start, min(start + 8192, len(vectors)))
        found[rows] = index.search(vectors.take(rows), nearest)[1]
        progress("clusters", len(rows))
    return found


def _faiss():
    try:
        import faiss
    except ImportError:
        raise UsageError(
            "near-duplicates among vectors need faiss", remedy="pip install 'vlcli[dedup]'"
        ) from None
    return faiss


def _rarity(number: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(k,) the place of each cluster when the rarest stands first."""
    sizes = np.bincount(left.ravel(), minlength=number) * np.bincount(right.ravel(), minlength=number)
    order = np.empty(number, np.int32)
    order[np.argsort(sizes, kind="stable")] = np.arange(number, dtype=np.int32)
    return order


def _listed(found: np.ndarray, order: np.ndarray, keep: int, number: int) -> Callable[[int], np.ndarray]:
    """The vectors of a cluster, each listed under the `keep` rarest of its clusters."""
    chosen = np.take_along_axis(found, np.argsort(order[found], axis=1)[:, :keep], axis=1).ravel()
    rows = np.argsort(chosen, kind="stable")
    ends = np.cumsum(np.bincount(chosen, minlength=number))
    rows //= keep

    def members(cluster: int) -> np.ndarray:
        return rows[0 if cluster == 0 else ends[cluster - 1] : ends[cluster]]

    return members


def _found_here(
    left: np.ndarray, right: np.ndarray, order: np.ndarray, cluster: int, shared: int
) -> np.ndarray:
    """(m,) whether pairs with these clusters (m, nearest) share enough, and `cluster` is the rarest shared one."""
    same = (left[:, :, None] == right[:, None, :]).any(2)
    rarest = np.where(same, order[left], len(order)).min(1)
    return (same.sum(1) >= shared) & (rarest == order[cluster])


class _Compare:
    """Cosines of lists of rows, tile by tile."""

    def __init__(self, left: Vectors, right: Vectors, bound: Bound, *, within: bool) -> None:
        self.left, self.right, self.bound, self.within = left, right, bound, within

    def lists(self, a: np.ndarray, b: np.ndarray) -> Iterator[Pairs]:
        """The pairs of `a` and `b` (both ascending) within the bound; a < b when both sides are one."""
        for i in range(0, len(a), TILE):
            x = a[i : i + TILE]
            left = self.left.take(x)
            for j in range(0, len(b), TILE):
                y = b[j : j + TILE]
                if self.within and y[-1] <= x[0]:
                    continue
                right = self.right.take(y)
                near = left @ right.T >= self.bound.value - SLACK
                p, q = np.nonzero(near)
                if self.within:
                    once = x[p] < y[q]
                    p, q = p[once], q[once]
                for start in range(0, len(p), 65536):
                    part = slice(start, start + 65536)
                    one, two = left[p[part]].astype(np.float64), right[q[part]].astype(np.float64)
                    cosine = _cosine(one, two)
                    kept = self.bound.holds(cosine)
                    if kept.any():
                        yield x[p[part]][kept], y[q[part]][kept], cosine[kept]


def _cosine(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Row by row, in float64: two equal vectors have exactly the cosine that they should, whatever tile they are in."""
    products = np.einsum("ij,ij->i", one, two)
    lengths = np.einsum("ij,ij->i", one, one) * np.einsum("ij,ij->i", two, two)
    return products / np.sqrt(np.maximum(lengths, np.finfo(np.float64).tiny))


def cosines(left: Vectors, a: np.ndarray, right: Vectors, b: np.ndarray) -> np.ndarray:
    """(m,) cosines of left[a[i]] and right[b[i]]."""
    found = np.empty(len(a))
    for start in range(0, len(a), 65536):
        part = slice(start, start + 65536)
        one, two = left.take(a[part]).astype(np.float64), right.take(b[part]).astype(np.float64)
        found[part] = _cosine(one, two)
    return found

"""Near-duplicates among vectors, as ALIGN removed them (Jia et al. 2021, Appendix A).

k-means clusters; the nearest 10 clusters of each image; a bucket for every 3 of these 10, so that two images share a
bucket exactly when they share 3 clusters; and of such candidates those whose cosine is above 0.975.

The buckets are never made: a pair must pass both tests, and here the cosine comes first. Vectors that share a cluster
are multiplied as a matrix, in fewer dimensions that are sure to lose no pair, and the few pairs that may be above the
bound are asked for their clusters, then for their cosine. Two sets of 10 that share 3 share one among any 8 of each as
well, if the 8 are chosen by one order of all clusters; so each vector is listed under its 8 rarest clusters alone.
Nothing is lost by any of this.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np

from vlcli.curation.bounds import Bound
from vlcli.curation.embeddings import Vectors
from vlcli.curation.fewer_dimensions import FewerDimensions, axes_for
from vlcli.curation.groups import Groups
from vlcli.curation.threads import in_threads
from vlcli.curation.vector_clusters import Centroids, Clusters, needed
from vlcli.errors import UsageError

ROWS = 512  # vectors on the left of one product
COLUMNS = 2048  # and on its right
SEGMENT = 8192  # vectors of a list that are read at once
CLUSTERED = 4096  # vectors whose clusters are searched at once
SLACK = 1e-4  # what float32 may be off before the exact product
DENSE = 32  # where more than one pair of so many may be near, all dimensions are multiplied
FIRST, MOST = 4096, 65_536  # pairs that are asked for their clusters at once, in the beginning and later
EXACT = 4096  # pairs whose exact cosine is computed at once
THREADS = 32  # at most; each holds some 30 MiB at 512 dimensions
SEED = 0

T = TypeVar("T")
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b (m,) int64, cosine (m,) float64
Progress = Callable[[str, int], None]
Job = Callable[[], Iterable[Pairs | int]]  # pairs, and for how many vectors the work is done
Candidates = Callable[[np.ndarray, np.ndarray], np.ndarray]  # a, b (m,) → (m,) whether the pair counts here


def near_vectors(
    vectors: Vectors,
    bound: Bound,
    clusters: Clusters,
    others: Vectors | None = None,
    *,
    groups: Groups | None = None,
    seed: int = SEED,
    progress: Progress = lambda what, rows: None,
) -> Iterator[Pairs]:
    """Places of `vectors` and of `others` whose cosine is within `bound`, each pair once; without `others` a < b.

    With `groups` (of `vectors` alone) pairs are linked in them, and those that are in one group already passed over:
    what is nearly equal throughout does not cost its square, and which pairs come is left to chance. The clusters are
    learnt from `vectors`. Raises UsageError without the extra `dedup`, and where dimensions differ.
    """
    if others is not None and len(others) and len(vectors) and others.dim != vectors.dim:
        raise UsageError(f"vectors of {vectors.dim} dimensions cannot be compared with {others.dim}")
    target = vectors if others is None else others
    if not len(vectors) or not len(target):
        return
    compare = _Compare(vectors, others, bound, groups)
    number = clusters.number(len(vectors))
    jobs = _by_clusters(compare, number, clusters, seed, progress) if number else compare.whole()
    for found in _in_threads(jobs):
        if isinstance(found, int):
            progress("comparing", found)
        else:
            yield found


def _by_clusters(
    compare: _Compare, number: int, clusters: Clusters, seed: int, progress: Progress
) -> Iterator[Job]:
    """A job for each cluster."""
    centroids = Centroids(compare.vectors, number, seed, progress)
    axes = axes_for(centroids.within, compare.bound.value)
    left, compare.left = _nearest(compare.vectors, centroids, clusters.nearest, axes, progress)
    right, compare.right = left, compare.left
    if not compare.within:
        right, compare.right = _nearest(compare.others, centroids, clusters.nearest, axes, progress)
    order = _rarity(number, left, right)
    left = _sorted(left, order)
    right = left if compare.within else _sorted(right, order)
    keep = clusters.nearest - clusters.shared + 1
    one = _listed(left, keep, number)
    two = one if compare.within else _listed(right, keep, number)
    done = np.bincount(left[:, 0], minlength=number).tolist()

    def job(cluster: int) -> Iterator[Pairs | int]:
        def here(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return _found_here(left[x], right[y], cluster, clusters.shared)

        yield from compare.lists(one(cluster), None if compare.within else two(cluster), here)
        yield done[cluster]

    return (partial(job, cluster) for cluster in reversed(range(number)))  # the largest first


@contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Let BLAS and faiss, and with them what is here, have so many threads at most."""
    if threads is None:
        yield
        return
    needed("faiss")  # what is not loaded yet is not bounded
    control = needed("threadpoolctl")
    most = max(library["num_threads"] for library in control.threadpool_info())
    with control.threadpool_limits(min(threads, most)):
        yield


def _in_threads(jobs: Iterable[Callable[[], Iterable[T]]]) -> Iterator[T]:
    """As many threads as BLAS has, each with a BLAS of one: in products of this size more would wait for each other."""
    control = needed("threadpoolctl")
    threads = max(library["num_threads"] for library in control.threadpool_info())
    with control.threadpool_limits(1, user_api="blas"):
        yield from in_threads(jobs, min(threads, THREADS))


def _nearest(
    vectors: Vectors, centroids: Centroids, nearest: int, axes: np.ndarray | None, progress: Progress
) -> tuple[np.ndarray, Vectors | FewerDimensions]:
    """(n, nearest) int32: each vector's clusters; and what is multiplied first."""
    found = np.empty((len(vectors), nearest), np.int32)
    fewer = None if axes is None else FewerDimensions(axes, len(vectors))

    def job(start: int) -> Iterator[int]:
        rows = np.arange(start, min(start + CLUSTERED, len(vectors)))
        block = vectors.take(rows)
        needed("faiss").omp_set_num_threads(1)  # of this thread's searches
        found[rows] = centroids.nearest(block, nearest)
        if fewer is not None:
            fewer.put(rows, block)
        yield len(rows)

    for rows in _in_threads(partial(job, start) for start in range(0, len(vectors), CLUSTERED)):
        progress("clusters", rows)
    return found, vectors if fewer is None else fewer


def _rarity(number: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(k,) the place of each cluster when the rarest stands first."""
    sizes = np.bincount(left.ravel(), minlength=number) * np.bincount(right.ravel(), minlength=number)
    order = np.empty(number, np.int32)
    order[np.argsort(sizes, kind="stable")] = np.arange(number, dtype=np.int32)
    return order


def _sorted(found: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(n, nearest) int32: each vector's clusters by their places in the order, ascending."""
    places = order[found]
    places.sort(axis=1)
    return places


def _listed(found: np.ndarray, keep: int, number: int) -> Callable[[int], np.ndarray]:
    """The vectors of a cluster, ascending, each listed under the first `keep` of its clusters."""
    chosen = found[:, :keep].ravel()
    rows = np.argsort(chosen, kind="stable")
    ends = np.cumsum(np.bincount(chosen, minlength=number))
    rows //= keep

    def members(cluster: int) -> np.ndarray:
        return rows[0 if cluster == 0 else ends[cluster - 1] : ends[cluster]]

    return members


def _found_here(left: np.ndarray, right: np.ndarray, cluster: int, shared: int) -> np.ndarray:
    """(m,) whether pairs of these sorted clusters (m, nearest) share enough, and `cluster` is the first shared one."""
    one, two = np.ascontiguousarray(left.T), np.ascontiguousarray(right.T)
    count = np.zeros(len(left), np.int8)
    before = np.zeros(len(left), bool)
    for mine in one:
        same = np.zeros(len(left), bool)
        for theirs in two:
            same |= mine == theirs
        count += same
        before |= same & (mine < cluster)
    return (count >= shared) & ~before


class _Compare:
    """Cosines of lists of rows, tile by tile. `left` and `right` are what is multiplied first."""

    left: Vectors | FewerDimensions
    right: Vectors | FewerDimensions

    def __init__(self, vectors: Vectors, others: Vectors | None, bound: Bound, groups: Groups | None) -> None:
        self.vectors, self.others = vectors, vectors if others is None else others
        self.within, self.bound = others is None, bound
        self.left, self.right = self.vectors, self.others
        self._groups = groups

    def whole(self) -> Iterator[Job]:
        """All with all."""

        def job(i: int, j: int) -> Iterator[Pairs | int]:
            a = np.arange(i, min(i + SEGMENT, len(self.vectors)))
            b = np.arange(j, min(j + SEGMENT, len(self.others)))
            yield from self._segments(a, None if self.within and i == j else b, None)
            yield len(a) if j == 0 else 0

        for i in range(0, len(self.vectors), SEGMENT):
            for j in range(0, i + 1 if self.within else len(self.others), SEGMENT):
                yield partial(job, i, j)

    def lists(
        self, a: np.ndarray, b: np.ndarray | None, candidates: Candidates | None = None
    ) -> Iterator[Pairs]:
        """The pairs of `a` and `b` within the bound; without `b` those of `a` with itself, a < b."""
        if b is not None:
            for i, j in itertools.product(range(0, len(a), SEGMENT), range(0, len(b), SEGMENT)):
                yield from self._segments(a[i : i + SEGMENT], b[j : j + SEGMENT], candidates)
            return
        while len(a) > 1:
            if self._groups is not None:  # what need not be compared stands together
                a = a[np.argsort(self._groups.of(a), kind="stable")]
            yield from self._segments(a[:SEGMENT], None, candidates)
            for j in range(SEGMENT, len(a), SEGMENT):
                yield from self._segments(a[:SEGMENT], a[j : j + SEGMENT], candidates)
            a = a[SEGMENT:]

    def _segments(
        self, a: np.ndarray, b: np.ndarray | None, candidates: Candidates | None
    ) -> Iterator[Pairs]:
        if self._are_one(a if b is None else np.concatenate([a, b])):
            return
        left = self.left.take(a)
        right = left if b is None else self.right.take(b)
        for start in range(0, len(a), ROWS):
            x, rows = a[start : start + ROWS], left[start : start + ROWS]
            y, columns = (b, right) if b is not None else (a[start:], right[start:])
            if self._groups is not None and self._are_one(x):
                apart = self._groups.of(y) != self._groups.of(x[:1])
                y, columns, once = y[apart], columns[apart], True
            else:
                once = b is not None
            for place in range(0, len(y), COLUMNS):
                part = slice(place, place + COLUMNS)
                near = (rows @ columns[part].T >= self.bound.value - SLACK).ravel()
                p, q = np.divmod(np.flatnonzero(near), len(y[part]))
                if not once:  # y begins with x
                    later = q + place > p
                    p, q = p[later], q[later]
                yield from self._near(x, y[part], p, q, candidates)

    def _near(
        self, x: np.ndarray, y: np.ndarray, p: np.ndarray, q: np.ndarray, candidates: Candidates | None
    ) -> Iterator[Pairs]:
        """The pairs (x[p], y[q]) within the bound, of those that may be. All dimensions are multiplied as a matrix
        where many are left; what comes first links most of what is near throughout, so it is a small part."""
        size, whole = FIRST, self.left is self.vectors
        while len(p):
            yield from self._exact(x[p[:size]], y[q[:size]], candidates)
            p, q = p[size:], q[size:]
            if self._groups is not None and len(p):
                apart = self._groups.of(x)[p] != self._groups.of(y)[q]
                p, q = p[apart], q[apart]
            if not whole and len(p) > len(x) * len(y) // DENSE:
                product = self.vectors.take(x) @ self.others.take(y).T
                near = product[p, q] >= self.bound.value - SLACK
                p, q, whole = p[near], q[near], True
            size = min(2 * size, MOST)

    def _exact(self, a: np.ndarray, b: np.ndarray, candidates: Candidates | None) -> Iterator[Pairs]:
        if self._groups is not None:
            apart = self._groups.of(a) != self._groups.of(b)
            a, b = a[apart], b[apart]
        if candidates is not None:
            looked = candidates(a, b)
            a, b = a[looked], b[looked]
        if self.within:
            a, b = np.minimum(a, b), np.maximum(a, b)
        cosine = cosines(self.vectors, a, self.others, b)
        kept = self.bound.holds(cosine)
        if kept.any():
            if self._groups is not None:
                self._groups.link(a[kept], b[kept])
            yield a[kept], b[kept], cosine[kept]

    def _are_one(self, rows: np.ndarray) -> bool:
        """Whether all are in one group already."""
        if self._groups is None:
            return False
        groups = self._groups.of(rows)
        return bool((groups == groups[0]).all())


def cosines(left: Vectors, a: np.ndarray, right: Vectors, b: np.ndarray) -> np.ndarray:
    """(m,) cosines of left[a[i]] and right[b[i]], in float64: a pair's is the same wherever it is computed."""
    found = np.empty(len(a))
    for start in range(0, len(a), EXACT):
        part = slice(start, start + EXACT)
        one, two = left.take(a[part]).astype(np.float64), right.take(b[part]).astype(np.float64)
        products = np.einsum("ij,ij->i", one, two)
        lengths = np.einsum("ij,ij->i", one, one) * np.einsum("ij,ij->i", two, two)
        found[part] = products / np.sqrt(np.maximum(lengths, np.finfo(np.float64).tiny))
    return found

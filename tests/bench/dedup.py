"""dedup of vectors by ALIGN's clusters: seconds, memory, the share of true pairs that is found; and others beside it.

    python tests/bench/dedup.py --n 1000000 --d 512 [--alike 0.2] [--hashes]

The vectors are made to look like those of pictures: kinds of picture whose sizes have a long tail (the largest has a
hundredth of all), each with its own spread, around a direction that all share; few dimensions vary much and many a
little; each vector has its own scale, which makes distances heavy-tailed. Each twentieth is a planted copy of another
whose cosine with it is drawn from 0.97 to 1. With --alike this share of all is one heap at cosine 0.99 of each other.

The truth is the planted pairs, and every pair of --queries vectors with all others. Beside ours: faiss' range search of
the same queries in a flat index, from which the time for all is extrapolated; and what SemDeDup does, all pairs inside
each k-means cell, with our cells. --hashes compares perceptual hashes instead, and with all others for 200 of them.
CPU seconds (user and system, of all threads) vary less than those of the clock on a machine that others use too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from vlcli.curation.bounds import Bound
from vlcli.curation.embeddings import Vectors
from vlcli.curation.groups import Groups
from vlcli.curation.hamming import near_codes
from vlcli.curation.near_vectors import cosines, near_vectors
from vlcli.curation.vector_clusters import Centroids, Clusters

BOUND = Bound(">", 0.975)
BLOCK = 50_000


def clocks() -> np.ndarray:
    """Seconds of the clock and of the CPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([time.monotonic(), used.ru_utime + used.ru_stime])


def said(what: str, seconds: np.ndarray, more: str = "") -> None:
    print(f"{what:<44} {seconds[0]:8.1f} s  {seconds[1]:8.1f} CPU s  {more}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    before = clocks()
    yield
    said(what, clocks() - before)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def spectrum(dim: int) -> np.ndarray:
    scales = np.arange(1, dim + 1) ** -0.4
    return (scales / np.linalg.norm(scales)).astype(np.float32)


def beside(rng: np.random.Generator, x: np.ndarray, cosine: np.ndarray | float) -> np.ndarray:
    """Vectors at this cosine of x, in any direction."""
    y = rng.standard_normal(x.shape, np.float32)
    y = unit(y - (x * y).sum(1, keepdims=True) * x)
    return np.float32(cosine) * x + np.sqrt(1 - np.float32(cosine) ** 2) * y


def plant(file: Path, number: int, dim: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """A (number, dim) float16 array in `file`; the places of the copies and of their originals."""
    rng = np.random.default_rng(0)
    kinds = max(8, number // 100)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    shared = np.zeros(dim, np.float32)
    shared[0] = 0.6
    centres = shared + 0.8 * rng.standard_normal((kinds, dim), np.float32) * spectrum(dim)
    spread = np.clip(rng.lognormal(np.log(0.6), 0.4, kinds), 0.25, 1.2).astype(np.float32)
    share = 1 / (np.arange(kinds) + 10)
    kind = rng.choice(kinds, number, p=share / share.sum())
    whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(number, dim))
    for start in range(0, number, BLOCK):
        mine = kind[start : start + BLOCK]
        scale = spread[mine] / np.sqrt(rng.gamma(4, 1 / 4, len(mine))).astype(np.float32)
        noise = rng.standard_normal((len(mine), dim), np.float32) * spectrum(dim)
        whole[start : start + BLOCK] = unit((centres[mine] + scale[:, None] * noise) @ turn)
    places = rng.permutation(number)
    copies, originals, heap = np.split(
        places, [number // 20, number // 10, number // 10 + int(alike * number)]
    )[:3]
    for start in range(0, len(copies), BLOCK):
        x = unit(whole[originals[start : start + BLOCK]])
        whole[copies[start : start + BLOCK]] = beside(rng, x, rng.uniform(0.97, 1, (len(x), 1)))
    for start in range(0, len(heap), BLOCK):
        rows = heap[start : start + BLOCK]
        whole[rows] = beside(rng, np.repeat(unit(whole[heap[:1]]), len(rows), 0), 0.99**0.5)
    whole.flush()
    return copies, originals


def keys(a: np.ndarray, b: np.ndarray, number: int) -> np.ndarray:
    """Sorted numbers of pairs, whichever comes first."""
    return np.unique(np.minimum(a, b) * number + np.maximum(a, b))


def truth(vectors: Vectors, queries: np.ndarray) -> np.ndarray:
    """The pairs of these rows with all others, by brute force."""
    found, x = [], vectors.take(queries)
    for start in range(0, len(vectors), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(vectors)))
        p, q = np.nonzero(x @ vectors.take(rows).T > BOUND.value - 1e-4)
        a, b = queries[p], rows[q]
        kept = (a != b) & BOUND.holds(cosines(vectors, a, vectors, b))
        found.append(keys(a[kept], b[kept], len(vectors)))
    return np.unique(np.concatenate(found))


def recall(name: str, found: np.ndarray, true: dict[str, np.ndarray]) -> None:
    for of, pairs in true.items():
        share = np.isin(pairs, found, assume_unique=True).mean() if len(pairs) else 1
        print(f"  {name}: recall {share:.4%} of {len(pairs):,} {of}", flush=True)


def ours(vectors: Vectors, clusters: Clusters, true: dict[str, np.ndarray], copies: np.ndarray) -> None:
    stages: dict[str, np.ndarray] = {}
    began = last = clocks()

    def progress(what: str, rows: int) -> None:
        nonlocal last
        stages[what] = stages.get(what, 0) + clocks() - last
        last = clocks()

    groups, dropped = Groups(len(vectors)), 0
    for _ in near_vectors(vectors, BOUND, clusters, groups=groups, progress=progress):
        pass
    first = groups.first()
    dropped = int((first != np.arange(len(first))).sum())
    said("vlcli, as dedup runs it", clocks() - began, f"peak {peak():,.0f} MiB; {dropped:,} rows dropped")
    for what, seconds in stages.items():
        said(f"  {what}", seconds)
    for of, pairs in true.items():
        a, b = np.divmod(pairs, len(vectors))
        share = (first[a] == first[b]).mean() if len(pairs) else 1
        print(f"  rows of {share:.4%} of {len(pairs):,} {of} in one group")


def ours_all(vectors: Vectors, clusters: Clusters, true: dict[str, np.ndarray]) -> None:
    began = clocks()
    parts = [(a, b) for a, b, _ in near_vectors(vectors, BOUND, clusters)]
    said("vlcli, all pairs", clocks() - began)
    a, b = (np.concatenate(side) for side in zip(*parts, strict=True))
    wrong = 0
    for start in range(0, len(a), BLOCK):
        part = slice(start, start + BLOCK)
        wrong += int((~BOUND.holds(cosines(vectors, a[part], vectors, b[part]))).sum())
    found = keys(a, b, len(vectors))
    assert len(found) == len(a), "a pair came twice"
    print(f"  {len(found):,} pairs, {wrong} of them not above the bound")
    recall("vlcli", found, true)


def cells(vectors: Vectors, clusters: Clusters, true: dict[str, np.ndarray]) -> None:
    """SemDeDup's pairs: above the bound and in one k-means cell."""
    began = clocks()
    number = clusters.number(len(vectors))
    centroids = Centroids(vectors, number, 0, lambda *_: None)
    home = np.concatenate(
        [
            centroids.nearest(vectors.take(np.arange(s, min(s + 8192, len(vectors)))), 1)[:, 0]
            for s in range(0, len(vectors), 8192)
        ]
    )
    found = []
    order = np.argsort(home, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(home, minlength=number))[:-1]):
        x = vectors.take(rows)
        for start in range(0, len(rows), 2048):
            p, q = np.nonzero(x[start : start + 2048] @ x.T > BOUND.value)
            once = p + start < q
            found.append(keys(rows[p[once] + start], rows[q[once]], len(vectors)))
    said("k-means cells (SemDeDup)", clocks() - began)
    recall("cells", np.unique(np.concatenate(found)), true)


def flat(vectors: Vectors, queries: np.ndarray) -> None:
    """faiss over all vectors, which it holds in float32."""
    index = faiss.IndexFlatIP(vectors.dim)
    with timed("faiss IndexFlatIP, filling it"):
        for start in range(0, len(vectors), BLOCK):
            index.add(vectors.take(np.arange(start, min(start + BLOCK, len(vectors)))))
    before = clocks()
    index.range_search(vectors.take(queries), BOUND.value)
    spent = clocks() - before
    said(f"faiss range search, {len(queries):,} queries", spent)
    said(f"  extrapolated to {len(vectors):,}", spent * len(vectors) / len(queries))


def hashes(number: int) -> None:
    """Codes with 32 bits set, as phash makes them, with correlated bits; each tenth is up to 8 bits from another."""
    rng = np.random.default_rng(0)
    mixing, codes = rng.standard_normal((16, 64)), np.empty(number, np.uint64)
    for start in range(0, number, BLOCK):
        size = min(BLOCK, number - start)
        z = 0.5 * rng.standard_normal((size, 16)) @ mixing + 1.5 * rng.standard_normal((size, 64))
        codes[start : start + size] = np.packbits(z > np.median(z, axis=1, keepdims=True)).view(np.uint64)
    copies, originals = np.split(rng.permutation(number)[: number // 5], 2)
    near, flips = codes[originals].copy(), rng.integers(0, 9, len(originals))
    for flip in range(8):
        some = flips > flip
        near[some] ^= np.uint64(1) << rng.integers(0, 64, some.sum()).astype(np.uint64)
    codes[copies] = near
    codes = rng.permutation(np.unique(codes))
    asked = np.sort(rng.choice(len(codes), 200, replace=False))
    for radius in (0, 4, 6, 8):
        began = clocks()
        found = [keys(a, b, len(codes)) for a, b, _ in near_codes(codes, radius)]
        spent = clocks() - began
        pairs = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
        naive = []
        for row in asked:
            beside = np.flatnonzero(np.bitwise_count(codes ^ codes[row]) <= radius)
            naive.append(keys(np.full(len(beside) - 1, row), beside[beside != row], len(codes)))
        a, b = np.divmod(pairs, len(codes))
        same = np.array_equal(pairs[np.isin(a, asked) | np.isin(b, asked)], np.unique(np.concatenate(naive)))
        said(f"{len(codes):,} hashes within {radius} bits", spent, f"{len(pairs):,} pairs; as naive: {same}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=4096)
    parser.add_argument("--alike", type=float, default=0.0)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--hashes", action="store_true", help="perceptual hashes, and no vectors")
    options = parser.parse_args()
    if options.hashes:
        return hashes(options.n)
    clusters = Clusters(options.clusters)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        copies, originals = plant(file, options.n, options.d, options.alike)
        vectors = Vectors([np.load(file, mmap_mode="r")])
        print(
            f"{options.n:,} × {options.d}, {clusters.number(options.n):,} clusters; {peak():,.0f} MiB so far"
        )
        rng = np.random.default_rng(1)
        queries = np.sort(rng.choice(options.n, min(options.queries, options.n), replace=False))
        above = BOUND.holds(cosines(vectors, copies, vectors, originals))
        edge = above & (cosines(vectors, copies, vectors, originals) < 0.98)
        planted = "planted pairs above the bound"
        true = {
            planted: keys(copies[above], originals[above], options.n),
            "planted pairs up to 0.98": keys(copies[edge], originals[edge], options.n),
        }
        ours(vectors, clusters, true, copies)
        with timed("truth by brute force"):
            pairs = truth(vectors, queries) if not options.alike else np.empty(0, np.int64)
        if not options.alike:  # with a heap there are more pairs than memory
            true[f"pairs of {len(queries):,} vectors with all"] = pairs
            ours_all(vectors, clusters, true)
            cells(vectors, clusters, true)
            flat(vectors, queries)


if __name__ == "__main__":
    main()

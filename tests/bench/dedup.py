"""dedup of vectors by ALIGN's clusters: seconds, memory, and the share of the true pairs that is found.

    python tests/bench/dedup.py [VECTORS] [DIMENSIONS] [CLUSTERS]        # default 1,000,000 512 4096

The vectors lie around VECTORS / 250 centres, as pictures of similar things do, below the bound of each other; each
twentieth has a planted copy whose cosine with it is drawn from 0.96 to 1, so that some stand on either side of the
bound. True pairs are those of the planted ones above it (all pairs at 20,000 vectors and below).
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vlcli.curation.bounds import Bound
from vlcli.curation.embeddings import Vectors
from vlcli.curation.near_vectors import Clusters, cosines, near_vectors
from vlcli.curation.twins import Cosines

BOUND = Bound(">", 0.975)
BLOCK = 50_000


def plant(file: Path, number: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (number, dim) float16 array in `file`, and the places of the copies and of their originals."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(1, number // 250), dim)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(number, dim))
    for start in range(0, number, BLOCK):
        size = min(BLOCK, number - start)
        noise = rng.normal(size=(size, dim)).astype(np.float32) / np.sqrt(dim)
        # cosine of two of one centre: 1 / (1 + 0.6²) = 0.74
        whole[start : start + size] = centres[rng.integers(len(centres), size=size)] + 0.6 * noise
    places = rng.permutation(number)
    copies, originals = places[: number // 20], places[number // 20 : 2 * (number // 20)]
    for start in range(0, len(copies), BLOCK):
        here = slice(start, start + BLOCK)
        x = Vectors([whole]).take(originals[here])
        y = rng.normal(size=x.shape).astype(np.float32)
        y -= (x * y).sum(1, keepdims=True) * x
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        cosine = rng.uniform(0.96, 1, (len(x), 1)).astype(np.float32)
        whole[copies[here]] = cosine * x + np.sqrt(1 - cosine**2) * y
    whole.flush()
    return whole, copies, originals


def main(number: int = 1_000_000, dim: int = 512, clusters: int = 4096) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        whole, copies, originals = plant(file, number, dim)
        del whole
        vectors = Vectors([np.load(file, mmap_mode="r")])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, last = time.monotonic(), ["", 0.0]

        def progress(what: str, rows: int) -> None:
            if what != last[0]:
                print(f"{time.monotonic() - began:8.1f} s  {what}", flush=True)
                last[0] = what

        settings = Clusters(clusters)
        print(f"{number:,} × {dim}, {settings.number(number)} clusters")
        found: set[tuple[int, int]] = set()
        for a, b, _ in near_vectors(vectors, BOUND, settings, progress=progress):
            found.update(zip(a.tolist(), b.tolist(), strict=True))
        seconds = time.monotonic() - began
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if number <= 20_000:
            true = set()
            for a, b, _ in near_vectors(vectors, BOUND, Clusters(0)):
                true.update(zip(a.tolist(), b.tolist(), strict=True))
        else:
            above = BOUND.holds(cosines(vectors, copies, vectors, originals))
            pairs = np.sort(np.stack([copies, originals], 1)[above], 1)
            true = set(map(tuple, pairs.tolist()))
        print(f"{seconds:8.1f} s; peak {held / 1024:,.0f} MiB ({before / 1024:,.0f} before)")
        print(
            f"true pairs {len(true):,}, of them found {len(true & found) / len(true):.4%}; found {len(found):,}"
        )
        dropped = Cosines(BOUND, settings).among(vectors, progress) if number <= 20_000 else None
        if dropped is not None:
            print(f"dropped {(dropped.twin >= 0).sum():,}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

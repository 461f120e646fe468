"""A faiss index beside the vectors of a directory of embeddings: built in bounded memory but for the index itself, and
its loss of recall measured when it is built.

The file is clip-retrieval's `image.index`, of inner products; what kind it is says a string of faiss.index_factory
(Flat, HNSW32, "IVF1024,PQ32x8").
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlcli.curation.embeddings import Embeddings
from vlcli.curation.vector_clusters import needed
from vlcli.errors import InputError, UsageError

FILE = "image.index"
BLOCK = 16_384
TRAINED = 65_536  # vectors that an index is trained on, at most
ASKED, NEAREST = 200, 10  # of the measurement: queries, and results of each
PROBED = 32  # lists of an inverted file that a search looks into


def build_index(
    place: Path, kind: str, *, seed: int = 0, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Write `place`/image.index over the images' vectors. {"vectors", "bytes", "recall@10"}: the share, in percent, of
    the ten nearest of some of the vectors themselves that the index finds.

    Raises UsageError for a kind that faiss does not know or that wants more vectors, and without faiss.
    """
    faiss = needed("faiss", "--faiss needs")
    vectors = Embeddings(place, "image")
    if not len(vectors):
        raise InputError("no vectors", file=str(place))
    try:
        index = faiss.index_factory(vectors.dim, kind, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UsageError(f"--faiss {kind}: {_reason(error)}") from None
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(vectors), min(len(vectors), TRAINED), replace=False))
    try:
        if not index.is_trained:
            index.train(vectors.take(sample))
        for start in range(0, len(vectors), BLOCK):
            some = np.arange(start, min(start + BLOCK, len(vectors)))
            index.add(vectors.take(some))
            progress(len(some))
    except RuntimeError as error:
        raise UsageError(f"--faiss {kind}: {_reason(error)} ({len(vectors):,} vectors)") from None
    _look_into(faiss, index)
    queries = vectors.take(np.sort(rng.choice(len(vectors), min(len(vectors), ASKED), replace=False)))
    recall = _recall(index, vectors, queries)
    temporary = place / f".{FILE}.tmp"
    faiss.write_index(index, str(temporary))
    os.replace(temporary, place / FILE)
    return {"vectors": len(vectors), "bytes": (place / FILE).stat().st_size, "recall@10": recall}


class FaissIndex:
    """A file that `build_index`, or clip-retrieval, wrote over the vectors of its directory; mapped, not read.

    Raises UsageError where it is of other vectors, InputError where it is damaged.
    """

    def __init__(self, file: Path, vectors: Embeddings) -> None:
        faiss = needed("faiss", f"{file}: reading it needs")
        try:
            self.index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise InputError(f"no faiss index: {_reason(error)}", file=str(file)) from None
        if (self.index.d, self.index.ntotal) != (vectors.dim, len(vectors)):
            raise UsageError(
                f"{file} is of {self.index.ntotal:,} vectors of {self.index.d}, beside it are {len(vectors):,} of "
                f"{vectors.dim}",
                remedy="vlcli embed --faiss makes it anew",
            )
        if self.index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise UsageError(f"{file} is not of inner products, which cosines are")
        _look_into(faiss, self.index)

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """Numbers and scores of the `k` nearest that the index finds, best first."""
        scores, numbers = self.index.search(vector[None], min(k, self.index.ntotal))
        return [(int(n), round(float(s), 6)) for n, s in zip(numbers[0], scores[0], strict=True) if n >= 0]


def _look_into(faiss: Any, index: Any) -> None:
    """How many lists of an inverted file are searched: faiss has one of them by default."""
    try:
        inverted = faiss.extract_index_ivf(index)
    except RuntimeError:
        return
    inverted.nprobe = min(PROBED, inverted.nlist)


def _recall(index: Any, vectors: Embeddings, queries: npt.NDArray[np.float32]) -> float:
    k = min(NEAREST, len(vectors))
    best = np.full((len(queries), k), -np.inf, np.float32)
    where = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(vectors), BLOCK):
        some = np.arange(start, min(start + BLOCK, len(vectors)))
        scores = np.concatenate([best, queries @ vectors.take(some).T], 1)
        numbers = np.concatenate([where, np.broadcast_to(some, (len(queries), len(some)))], 1)
        order = np.argsort(-scores, 1, kind="stable")[:, :k]
        best, where = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    _, found = index.search(queries, k)
    hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(where, found, strict=True)]
    return round(100 * float(np.mean(hits)) / k, 2)


def _reason(error: RuntimeError) -> str:
    """What faiss says, without where in its sources it says so."""
    return str(error).split(": ")[-1].split(" at /")[0].strip() or "refused by faiss"

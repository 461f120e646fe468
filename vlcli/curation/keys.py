"""What rows are compared by: a key for every image, read in input order and held; images are not."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from vlcli.curation.embeddings import Embeddings, Vectors
from vlcli.errors import UsageError
from vlcli.images.decode import decode
from vlcli.images.resolve import ImageReader
from vlcli.records.batch import Batch

Key = Callable[[bytes], Any]


def sha256_key(data: bytes) -> np.ndarray:
    """(2,) uint64, the first 128 bits."""
    return np.frombuffer(hashlib.sha256(data).digest()[:16], np.uint64)


def phash_key() -> Key:
    """image bytes → uint64, `imagehash.phash`: signs of the 8 × 8 lowest frequencies against their median.

    Raises UsageError without imagehash; the key ValueError for what does not decode.
    """
    try:
        import imagehash
    except ImportError:
        raise UsageError(
            "perceptual hashes need imagehash", remedy="pip install 'vlcli[dedup]', or --method bytes"
        ) from None

    def key(data: bytes) -> np.uint64:
        bits = imagehash.phash(decode(data)).hash
        return np.packbits(bits).view(np.uint64)[0]

    return key


class ImageKeys:
    """Keys of the images of batches; `causes` says by row number why one has none."""

    def __init__(self, key: Key, dtype: type = np.uint64, width: int = 1, *, jobs: int = 1) -> None:
        """`jobs` threads make keys: decoders and hashes work outside of Python's lock."""
        self._key, self._width, self._dtype, self._jobs = key, width, dtype, jobs
        self._chunks: list[np.ndarray] = []
        self.rows = 0
        self.causes: dict[int, str] = {}

    def add(self, batch: Batch, reader: ImageReader) -> None:
        found: list[Any] = []
        waiting: deque[tuple[str | None, Future[Any]]] = deque()

        def take() -> None:
            reference, key = waiting.popleft()
            try:
                found.append(key.result())
            except (ValueError, OSError) as error:
                self.causes[self.rows] = _cause(error, reference)
            self.rows += 1

        images = zip(batch.frame["image"], batch.frame["image_bytes"], strict=True)
        with ThreadPoolExecutor(self._jobs, "keys") as pool:
            for reference, data in images:
                waiting.append((reference, self._asked(pool, reader, reference, data)))
                if len(waiting) > 4 * self._jobs:
                    take()
            while waiting:
                take()
        self._chunks.append(np.array(found, self._dtype).reshape(-1, self._width))

    def _asked(
        self, pool: ThreadPoolExecutor, reader: ImageReader, reference: str | None, data: bytes | None
    ) -> Future[Any]:
        """The key, being made. Images are read here, in their order: a reader holds one row group."""
        try:
            if data is None:
                if reference is None:
                    raise ValueError("no image")
                data = reader.read(reference)
        except (ValueError, OSError) as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed
        return pool.submit(self._key, data)

    def finish(self) -> np.ndarray:
        """(n,) or (n, width): the keys of the rows that have one."""
        empty: np.ndarray = np.empty((0, self._width), self._dtype)
        whole = np.concatenate([empty, *self._chunks])
        return whole[:, 0] if self._width == 1 else whole


def _cause(error: Exception, reference: str | None) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    shown = reference is None or reference in text or reference.startswith("data:")
    return text if shown else f"{reference}: {text}"


class VectorKeys:
    """Vectors of a directory of embeddings, matched with the rows by their ids: rows that it left out have none."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self._ids = self._stream(embeddings.metadata(["id"]))
        self._next = next(self._ids, None)
        self._matched = 0
        self.rows = 0
        self.causes: dict[int, str] = {}

    @staticmethod
    def _stream(parts: Iterable[dict[str, list[Any]]]) -> Iterator[tuple[str | None]]:
        return ((name,) for part in parts for name in part["id"])

    def add(self, batch: Batch, reader: ImageReader) -> None:
        for name in batch.frame["id"].to_list():
            if self._next is not None and self._next[0] in (name, None):
                self._next = next(self._ids, None)
                self._matched += 1
            else:
                self.causes[self.rows] = f"no vector of {name} in {self._embeddings.path}"
            self.rows += 1

    def finish(self) -> Vectors:
        """The vectors. Raises UsageError where some belong to none of the rows."""
        if self._next is not None:
            raise UsageError(
                f"{self._embeddings.path}: {len(self._embeddings) - self._matched:,} of its vectors belong to no row"
                f" of the input, the first is of {self._next[0]}",
                remedy="give dedup the same input as embed",
            )
        return self._embeddings

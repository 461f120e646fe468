"""Lists of vectors on disk, each found by its key.

A store is a folder of two files that only grow: `vectors.bin` has the numbers (float32), `index.bin` a record for each
list: its key, where it starts, its shape, and checksums of the list and of the record. A list is written before its
record, both under a lock, so that processes can write at once; none holds the lock while it computes. What a checksum
does not agree with is told once and is missing, as if it had never been there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]  # (n, d)

KEY_BYTES = 16
# key; where the list starts in vectors.bin, its rows and width; CRC-32 of its numbers, and of the record before here
RECORD = struct.Struct(f"<{KEY_BYTES}sQIIII")


class VectorStore:
    """`find(keys)` says which are there, `read(key)` gives a list, `append(keys, lists)` keeps new ones.

    `say` is told of damage, a line at most for each opening of the store.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] = lambda line: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._say = folder, say
        self._vectors = os.open(folder / "vectors.bin", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._index = os.open(folder / "index.bin", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._records: dict[bytes, tuple[int, int, int, int]] = {}  # key → start, rows, width, sum
        self._bad: set[tuple[bytes, int, int, int, int]] = set()  # records whose list is not what they say
        self._seen = 0  # bytes of the index that are in `_records`
        self._end = 0  # of the last list in vectors.bin
        self._map: mmap.mmap | None = None
        self._told = False
        with self._locked():
            self._follow()

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: bytes) -> bool:
        return key in self._records

    def read(self, key: bytes) -> Vectors | None:
        """The list of `key`; None where there is none, or no whole one any more."""
        found = self._records.get(key)
        if found is None:
            return None
        start, rows, width, total = found
        stop = start + 4 * rows * width
        if (view := self._mapped(stop)) is not None and zlib.crc32(view[start:stop]) == total:
            return np.frombuffer(view, "<f4", rows * width, start).reshape(rows, width)
        self._damage("vectors.bin is not what was written")
        self._bad.add((key, *self._records.pop(key)))
        self._seen = 0  # another process may have cut the files, and filled them anew
        return None

    def append(self, keys: Sequence[bytes], lists: Sequence[Vectors]) -> int:
        """Keep the lists whose key is new; returns how many bytes that took. Raises OSError."""
        with self._locked():
            self._follow()
            body, records, end = [], [], self._end
            for key, vectors in zip(keys, lists, strict=True):
                if key in self._records:
                    continue
                rows, width = vectors.shape
                data = np.ascontiguousarray(vectors, "<f4").tobytes()
                total = zlib.crc32(data)
                self._records[key] = (end, rows, width, total)
                body.append(data)
                records.append(_record(key, end, rows, width, total))
                end += len(data)
            try:
                _write(self._vectors, b"".join(body), self._end)
                _write(self._index, b"".join(records), self._seen)
            except OSError:
                for record in records:
                    del self._records[record[:KEY_BYTES]]
                raise
            grown = end - self._end + RECORD.size * len(records)
            self._end, self._seen = end, self._seen + RECORD.size * len(records)
        return grown

    def close(self) -> None:
        """Let go of the files; lists that were read stay valid."""
        for file in (self._vectors, self._index):
            os.close(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone on the files; on a file system without locks the checksums have to do."""
        with suppress(OSError):
            fcntl.flock(self._index, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self._index, fcntl.LOCK_UN)

    def _follow(self) -> None:
        """Take in what the index has grown by, and cut off what is damaged; under the lock."""
        size = os.fstat(self._index).st_size
        if size < self._seen:  # another process has cut it
            self._records.clear()
            self._seen = self._end = 0
        held = os.fstat(self._vectors).st_size
        data = os.pread(self._index, size - self._seen, self._seen)
        whole = len(data) // RECORD.size
        good = stop = 0
        for key, start, rows, width, total, own in RECORD.iter_unpack(data[: whole * RECORD.size]):
            stop = start + 4 * rows * width
            if own != _sum_of(key, start, rows, width, total) or stop > held:
                break
            if (key, start, rows, width, total) not in self._bad:
                self._records[key] = (start, rows, width, total)
            self._end = max(self._end, stop)
            good += 1
        self._seen += good * RECORD.size
        if self._seen < size:
            cut = "vectors.bin is cut short" if good < whole and stop > held else "index.bin is damaged"
            self._damage(f"{cut}, {len(self._records)} of about {len(self._records) + whole - good} are left")
            os.ftruncate(self._index, self._seen)

    def _mapped(self, stop: int) -> mmap.mmap | None:
        """The numbers up to `stop` at least, or nothing where the file is shorter."""
        size = os.fstat(self._vectors).st_size
        if size < stop:
            return None
        if self._map is None or len(self._map) < stop:
            self._map = mmap.mmap(self._vectors, size, prot=mmap.PROT_READ)
        return self._map

    def _damage(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._say(f"{self.folder}: {what}; what is missing is computed anew")


def _sum_of(*fields: Any) -> int:
    return zlib.crc32(RECORD.pack(*fields, 0)[:-4])


def _record(*fields: Any) -> bytes:
    return RECORD.pack(*fields, _sum_of(*fields))


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done

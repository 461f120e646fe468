"""Vectors that are computed once and kept on disk: rows of one size, each found by its key.

A store is a folder of two append-only files: the rows, and `keys.bin`. Rows are written and synced before their keys,
so that a killed process leaves at worst rows without keys, which the next one cuts off. Keys are held in memory, rows
are mapped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[int, int], None]  # rows done, rows to do
CHUNK = 64


class RowStore:
    """`add(keys, compute)` makes the rows that are missing and gives the place of each; `take(places)` reads them."""

    def __init__(
        self, folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, key_bytes: int
    ) -> None:
        self.folder, self.shape, self.dtype, self.key_bytes = folder, shape, dtype, key_bytes
        self.row_bytes = int(np.prod(shape)) * dtype.itemsize
        self._file = folder / f"{name}.bin"
        self._rows = 0
        self._keys = np.empty(0, f"S{key_bytes}")  # sorted
        self._places = np.empty(0, np.int64)  # of the sorted keys
        self._mapped: np.memmap[Any, Any] | None = None

    def missing_bytes(self, rows: int) -> int:
        """What that many new rows would take on disk."""
        return rows * (self.row_bytes + self.key_bytes)

    def add(
        self,
        keys: Sequence[bytes] | np.ndarray,
        compute: Callable[[Sequence[int]], np.ndarray],
        *,
        chunk: int = CHUNK,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """(n,) int64: the place of each key. `compute(places in keys)` → the rows (m, …) of those that are not there,
        each key once, at most `chunk` at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = np.asarray(keys, dtype=f"S{self.key_bytes}")
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read_keys()
            missing = np.flatnonzero(self._find(wanted) < 0)
            if len(missing):
                _, first = np.unique(wanted[missing], return_index=True)
                self._append(wanted, missing[np.sort(first)].tolist(), compute, chunk, progress)
                self._read_keys()
        self._mapped = None
        if self._rows:
            shape = (self._rows, *self.shape)
            self._mapped = np.memmap(self._file, dtype=self.dtype, mode="r", shape=shape)
        return self._find(wanted)

    def _read_keys(self) -> None:
        keys, size = self.folder / "keys.bin", self.key_bytes
        for file in (keys, self._file):
            file.touch()
        rows = min(keys.stat().st_size // size, self._file.stat().st_size // self.row_bytes)
        os.truncate(keys, rows * size)
        os.truncate(self._file, rows * self.row_bytes)
        found = np.fromfile(keys, f"S{size}")
        # by row, not by different keys: after a power cut keys may be holes, equal to each other
        self._places = np.argsort(found, kind="stable")
        self._keys = found[self._places]
        self._rows = rows

    def _find(self, wanted: np.ndarray) -> np.ndarray:
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        at = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._places[at], -1)

    def _append(
        self,
        keys: np.ndarray,
        places: list[int],
        compute: Callable[[Sequence[int]], np.ndarray],
        chunk: int,
        progress: Progress | None,
    ) -> None:
        with open(self._file, "ab") as rows, open(self.folder / "keys.bin", "ab") as listed:
            for start in range(0, len(places), chunk):
                part = places[start : start + chunk]
                made = compute(part).astype(self.dtype)
                assert made.shape == (len(part), *self.shape), made.shape
                rows.write(made.tobytes())
                rows.flush()
                os.fsync(rows.fileno())
                listed.write(keys[part].tobytes())
                listed.flush()
                if progress is not None:
                    progress(min(start + chunk, len(places)), len(places))

    def take(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """(m, …) rows in float32."""
        assert self._mapped is not None, "add() comes first"
        return np.asarray(self._mapped[np.asarray(places)], dtype=np.float32)

"""A set of strings too large for memory: 128 bits of each on disk, in order, to be searched a batch at a time.

Two of a hundred million strings are taken for one with a chance of 1e-23.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.records.digest import key64

_BUCKETS = 256
Hashes = NDArray[np.uint64]


class HashedSet:
    """`add` strings that are all different, `freeze` once, then ask `contains`. `close` removes its files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vlcli-set-")
        self._first: Hashes = np.zeros(0, np.uint64)
        self._second: Hashes = np.zeros(0, np.uint64)
        self.size = 0

    def _path(self, name: object) -> Path:
        return Path(self._folder.name) / str(name)

    def add(self, strings: pl.Series) -> None:
        first, second = _hashes(strings)
        order = np.argsort(first, kind="stable")
        both = np.stack([first[order], second[order]], axis=1)
        bucket = both[:, 0] >> np.uint64(56)
        ends = np.searchsorted(bucket, np.arange(_BUCKETS + 1, dtype=np.uint64))
        for number in np.unique(bucket).tolist():
            with self._path(number).open("ab") as file:
                both[ends[number] : ends[number + 1]].tofile(file)
        self.size += len(strings)

    def freeze(self) -> None:
        """Bucket after bucket in order; what is searched are the pages of two files."""
        with self._path("first").open("wb") as one, self._path("second").open("wb") as two:
            for number in range(_BUCKETS):
                path = self._path(number)
                if path.exists():
                    both = np.fromfile(path, np.uint64).reshape(-1, 2)
                    both = both[np.lexsort((both[:, 1], both[:, 0]))]
                    np.ascontiguousarray(both[:, 0]).tofile(one)
                    np.ascontiguousarray(both[:, 1]).tofile(two)
                    path.unlink()
        self.open(Path(self._folder.name))

    def save(self, folder: Path) -> None:
        """After `freeze`: to a directory that others `open`."""
        for name in ("first", "second"):
            shutil.copyfile(self._path(name), folder / name)

    def open(self, folder: Path) -> None:
        """What another has saved."""
        self.size = (folder / "first").stat().st_size // 8
        if self.size:
            self._first = np.memmap(folder / "first", np.uint64, "r")
            self._second = np.memmap(folder / "second", np.uint64, "r")

    def contains(self, strings: pl.Series) -> NDArray[np.bool_]:
        """(n,) whether each string was added."""
        first, second = _hashes(strings)
        order = np.argsort(first)  # a walk through the file and not jumps in it
        at = np.empty(len(first), np.int64)
        at[order] = np.searchsorted(self._first, first[order])
        found = np.zeros(len(first), np.bool_)
        left = np.arange(len(first))
        while len(left):
            left = left[at[left] < len(self._first)]
            left = left[self._first[at[left]] == first[left]]
            same = self._second[at[left]] == second[left]
            found[left[same]] = True
            left = left[~same]
            at[left] += 1
        return found

    def close(self) -> None:
        self._first = self._second = np.zeros(0, np.uint64)
        self._folder.cleanup()


def _hashes(strings: pl.Series) -> tuple[Hashes, Hashes]:
    # A mark before the string and not another seed alone: strings whose hashes fall together then need not do so again.
    return key64(strings, 1), key64("#" + strings, 2)

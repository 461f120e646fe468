"""64-bit keys by the billion: which of them came how often, in bounded memory."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlcli.curation.key_set import Keys

_THREADS = 2


class KeyRuns:
    """`add` keys, then ask `where` once. They go to disk in runs, each in order, and are counted range by range.

    `run_keys` are held before they go to disk; `range_keys` are counted at once. The keys must be spread evenly, as
    hashes are. A context manager, whose files go when it closes.
    """

    def __init__(
        self, directory: str | Path | None = None, *, run_keys: int = 1 << 21, range_keys: int = 1 << 22
    ) -> None:
        self._parent, self._run_keys, self._range_keys = directory, run_keys, range_keys
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._held: list[Keys] = []
        self._number = 0  # of those held
        self._runs: list[Path] = []

    def add(self, keys: Keys) -> None:
        self._held.append(keys)
        self._number += len(keys)
        if self._number >= self._run_keys:
            self._put()

    def save(self, folder: Path) -> None:
        """Move all keys to `folder`, for the `merge` of another; to be asked for once, at the end."""
        self._put()
        for path in self._runs:
            shutil.move(path, folder / path.name)

    def merge(self, folders: Sequence[Path]) -> None:
        """Add what others have saved; their folders must stand until `where`."""
        self._runs += [path for folder in folders for path in sorted(folder.glob("keys-*"))]

    def where(self, wanted: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> Keys:
        """The keys whose numbers are `wanted`, in order."""
        runs: list[Keys] = [np.load(path, mmap_mode="r") for path in self._runs]
        if self._held:
            runs.append(np.sort(np.concatenate(self._held)))
        ranges = math.ceil(sum(map(len, runs)) / self._range_keys)
        edges = np.array([number * (1 << 64) // max(1, ranges) for number in range(1, ranges)], np.uint64)
        cuts = [[0, *np.searchsorted(run, edges).tolist(), len(run)] for run in runs]

        def among(number: int) -> Keys:
            parts = [run[cut[number] : cut[number + 1]] for run, cut in zip(runs, cuts, strict=True)]
            keys = np.sort(np.concatenate(parts))
            starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
            counts = np.diff(np.append(starts, len(keys)))
            return keys[starts[wanted(counts)]]

        with ThreadPoolExecutor(
            _THREADS
        ) as pool:  # sorting, which takes the time, leaves Python to the others
            return np.concatenate([np.zeros(0, np.uint64), *pool.map(among, range(ranges))])

    def _put(self) -> None:
        if not self._held:
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vlcli-keys-", dir=self._parent)
        path = Path(self._folder.name) / f"keys-{len(self._runs)}"
        with path.open("wb") as file:
            np.save(file, np.sort(np.concatenate(self._held)))
        self._runs.append(path)
        self._held, self._number = [], 0

    def close(self) -> None:
        """Give memory and files back."""
        self._held, self._runs = [], []
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> KeyRuns:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

"""What is numbered in input order: equal rows, for their ids, and the rows of each query, for their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlcli.records.occurrences import Keys, Occurrences

IDS, QUERIES = "ids", "queries"
_CHUNK = 1 << 22  # keys of another part in memory at a time


class Numbering:
    """A table for each of the two; a context manager. Asked in input order, it answers how often a key came before."""

    def __init__(self) -> None:
        self._tables = {IDS: Occurrences(), QUERIES: Occurrences()}

    def answer(self, name: str, keys: Keys) -> NDArray[np.int64]:
        return self._tables[name].count(keys)

    def save(self, folder: Path) -> None:
        """All keys and their counts, in the keys' order."""
        for name, table in self._tables.items():
            keys, counts = table.items()
            np.save(folder / f"{name}.keys.npy", keys)
            np.save(folder / f"{name}.counts.npy", counts)

    def seed(self, own: Path, before: Sequence[Path]) -> None:
        """Go on where the parts `before` have ended; only the keys that the part `own` has are wanted."""
        for name, table in self._tables.items():
            mine = np.load(own / f"{name}.keys.npy", mmap_mode="r")
            for folder in before:
                keys = np.load(folder / f"{name}.keys.npy", mmap_mode="r")
                counts = np.load(folder / f"{name}.counts.npy", mmap_mode="r")
                for start in range(0, len(keys), _CHUNK):
                    part = keys[start : start + _CHUNK]
                    at = np.minimum(np.searchsorted(mine, part), max(len(mine) - 1, 0))
                    shared = mine[at] == part if len(mine) else np.zeros(len(part), np.bool_)
                    table.add(part[shared], counts[start : start + _CHUNK][shared])

    def __enter__(self) -> Numbering:
        return self

    def __exit__(self, *_: Any) -> None:
        for table in self._tables.values():
            table.close()

"""Ranks of rows by what they have drawn, in each stratum, for more rows than memory holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlcli.curation.chance import Codes

_BUCKETS = 256
_HELD_ROWS = 1 << 20


class Buckets:
    """Records of numbers, to be read bucket by bucket in the order of their first number.

    What is little stays in memory and is one bucket; more goes to files by the leading bits of the first number,
    which has to be a hash for the buckets to be even.
    """

    def __init__(self, *, held_rows: int = _HELD_ROWS) -> None:
        self._held_rows = held_rows
        self._held: list[NDArray[np.uint64]] = []
        self._rows = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, *columns: Codes) -> None:
        self._held.append(np.stack(columns, axis=1))
        self._rows += len(columns[0])
        if self._rows >= self._held_rows:
            self._flush()

    def held(self) -> NDArray[np.uint64]:
        """(n, columns) what is in memory, if anything is."""
        if len(self._held) > 1:
            self._held = [np.concatenate(self._held)]
        return self._held[0] if self._held else np.zeros((0, 3), np.uint64)

    def replace_held(self, records: NDArray[np.uint64]) -> None:
        self._held, self._rows = [records], len(records)

    def _flush(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vlcli-ranks-")
        records = self.held()
        bucket = records[:, 0] >> np.uint64(56)
        order = np.argsort(bucket, kind="stable")
        records = records[order]
        ends = np.searchsorted(bucket[order], np.arange(_BUCKETS + 1, dtype=np.uint64))
        for number in np.unique(bucket).tolist():
            with (Path(self._folder.name) / str(number)).open("ab") as file:
                records[ends[number] : ends[number + 1]].tofile(file)
        self._columns = records.shape[1]
        self._held, self._rows = [], 0

    def __iter__(self) -> Iterator[NDArray[np.uint64]]:
        """(n, columns) at a time; may be walked over again."""
        if self._folder is None:
            if self._rows:
                yield self.held()
            return
        if self._rows:
            self._flush()
        for number in range(_BUCKETS):
            path = Path(self._folder.name) / str(number)
            if path.exists():
                yield np.fromfile(path, np.uint64).reshape(-1, self._columns)

    def __enter__(self) -> Buckets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = []
        if self._folder is not None:
            self._folder.cleanup()


class Ranking:
    """Ranks the rows of each stratum by their draws; of equal draws (rows with one id) the first row is the lower.

    Only ranks below `most` are asked for: rows that cannot have one are forgotten as soon as that is known.
    """

    def __init__(self, *, most: int | None = None, held_rows: int = _HELD_ROWS) -> None:
        self._most, self._held_rows = most, held_rows
        self._buckets = Buckets(held_rows=2 * held_rows)
        self._added = 0
        self.strata: Codes = np.zeros(0, np.uint64)  # in order
        self.sizes: NDArray[np.int64] = np.zeros(0, np.int64)  # rows of each stratum

    def add(self, draws: Codes, strata: Codes, rows: NDArray[np.int64]) -> None:
        self._count(strata)
        self._buckets.add(draws, strata, rows.astype(np.uint64))
        self._added += len(draws)
        if self._most is not None and self._added >= self._held_rows:
            self._forget()

    def _count(self, strata: Codes) -> None:
        new, sizes = np.unique(strata, return_counts=True)
        both, where = np.unique(np.concatenate([self.strata, new]), return_inverse=True)
        self.strata, counts = both, np.zeros(len(both), np.int64)
        np.add.at(counts, where, np.concatenate([self.sizes, sizes]))
        self.sizes = counts

    def _forget(self) -> None:
        assert self._most is not None
        records = self._buckets.held()
        order, within, _ = _within(records)
        self._buckets.replace_held(records[order[within < self._most]])
        self._added = 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """(n,) the place of its stratum in `strata`, its rank there from 0 on, the row; some rows at a time."""
        before = np.zeros(len(self.strata), np.int64)
        for records in self._buckets:
            order, within, starts = _within(records)
            place = np.searchsorted(self.strata, records[order, 1])
            yield place, before[place] + within, records[order, 2].astype(np.int64)
            before[place[starts]] += np.diff(np.append(starts, len(order)))

    def __enter__(self) -> Ranking:
        return self

    def __exit__(self, *error: Any) -> None:
        self._buckets.__exit__(*error)


def _within(
    records: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The order by (stratum, draw, row), each one's rank in its stratum, and where each stratum starts."""
    draws, strata, rows = records.T
    order = np.lexsort((rows, draws, strata))
    ordered = strata[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))[: len(order)]
    lengths = np.diff(np.append(starts, len(order)))
    return order, np.arange(len(order)) - np.repeat(starts, lengths), starts

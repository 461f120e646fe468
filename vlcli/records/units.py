"""The plan of a job array: inputs cut into units that can be read alone, the same for every part and every run.

A unit is a row group of a Parquet file, or 64 MiB of lines of a JSONL file (a line belongs to the unit that it starts
in); a compressed file and an Arrow stream are one unit, since they can only be read from their beginning.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from vlcli.errors import UsageError
from vlcli.records.sources import Source, open_source

UNIT_BYTES = 64 << 20
_SCAN = 8 << 20
_EDGE = 1 << 16  # bytes at both ends of an input by which it is known again


@dataclass(frozen=True)
class Unit:
    """`start` to `end` are row groups of a Parquet file, or bytes of lines; `end` 0: the whole file."""

    number: int  # in the plan
    source: int  # number of the input
    path: str
    start: int
    end: int
    first: int  # rows or lines before it in the file

    @property
    def is_whole(self) -> bool:
        return self.end == 0

    def open(self) -> BinaryIO:
        """The lines of a unit of a JSONL file."""
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (closed with what is returned)
        file.seek(self.start)
        return io.BufferedReader(_Bounded(file, self.end - self.start), 1 << 18)


class _Bounded(io.RawIOBase):
    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def plan_units(
    found: Sequence[Source], format: str | None = None, *, unit_bytes: int | None = None
) -> list[Unit]:
    """All units in input order. Raises UsageError for a pipe, which cannot be read by several processes."""
    units: list[Unit] = []
    for number, source in enumerate(found):
        if source.path is None or not os.path.isfile(source.path):
            raise UsageError(
                f"{source.name}: a pipe cannot be read in parts",
                remedy="name files, which every part can open",
            )
        with open_source(source, format) as opened:
            kind, is_plain = opened.kind, not opened.compressed
        if kind == "parquet" and is_plain:
            spans = _row_groups(source.path)
        elif kind == "jsonl" and is_plain:
            spans = _lines(source.path, unit_bytes or UNIT_BYTES)
        else:
            spans = [(0, 0, 0)]
        units += [Unit(len(units) + i, number, source.path, *span) for i, span in enumerate(spans)]
    return units


def parquet_metadata(path: str) -> Any:
    """What a Parquet file says of its row groups. Raises InputError for a file that is damaged."""
    import pyarrow.parquet as pq

    from vlcli.records.shaper import damage

    with damage(path):
        return pq.read_metadata(path)


def _row_groups(path: str) -> list[tuple[int, int, int]]:
    meta = parquet_metadata(path)
    spans, first = [], 0
    for group in range(meta.num_row_groups):
        spans.append((group, group + 1, first))
        first += meta.row_group(group).num_rows
    return spans


def _lines(path: str, unit_bytes: int) -> list[tuple[int, int, int]]:
    """(start, end, lines before): each unit ends behind the first line end at or after a multiple of `unit_bytes`."""
    spans: list[tuple[int, int, int]] = []
    start = first = lines = at = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_SCAN):
            done = 0
            while (goal := start + unit_bytes - at) <= len(block):
                end = block.find(b"\n", max(goal - 1, done))
                if end < 0:
                    break
                lines += block.count(b"\n", done, end + 1)
                spans.append((start, at + end + 1, first))
                start, first, done = at + end + 1, lines, end + 1
            lines += block.count(b"\n", done)
            at += len(block)
    if at > start:
        spans.append((start, at, first))
    return spans


def shown(units: Sequence[Unit]) -> list[dict[str, Any]]:
    """For the written plan."""
    return [asdict(unit) for unit in units]


def known_by(path: str) -> dict[str, Any]:
    """Name, size, and a digest of the beginning and the end, where Parquet keeps its statistics."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        edges = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        edges += file.read(_EDGE)
    return {"name": os.path.basename(path), "bytes": size, "edges": hashlib.sha256(edges).hexdigest()}

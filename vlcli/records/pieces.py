"""Inputs in pieces: one process reads them in order, and this or another makes batches of each."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError
from vlcli.records.batch import Batch
from vlcli.records.columns import Renames
from vlcli.records.jsonl import Lines, blocks, parse
from vlcli.records.sources import STDIN, Opened, Source, open_source

if TYPE_CHECKING:
    from vlcli.records.columnar import Rows
    from vlcli.records.parquet import ParquetFile, RowGroup
    from vlcli.records.units import Unit

OnBad = Callable[[int, str, Any], None]  # (line or row, cause, the row as it stands) of a bad row


@dataclass(frozen=True)
class Place:
    """The source that a piece is from."""

    number: int  # among all inputs
    file: str  # as messages and references name it
    folder: str  # where relative references start
    label: str  # that folder as identities see it
    embedded: bool  # images that are at hand become references into `file`
    alone: bool  # no other input comes


@dataclass(frozen=True)
class Shaped:
    """What was made of a piece waits in a file, to be read again without being parsed again."""

    path: Path
    size: int
    rows: int
    is_text: bool
    unmet: frozenset[str]  # columns to be renamed that had not come by then

    @classmethod
    def save(cls, path: Path, made: Any, rows: int, *, is_text: bool, unmet: set[str]) -> Shaped:
        with path.open("wb") as file:
            pickle.dump(made, file, protocol=5)
            size = file.tell()
        return cls(path, size, rows, is_text, frozenset(unmet))

    def load(self) -> Any:
        with self.path.open("rb") as file:
            return pickle.load(file)


@dataclass(frozen=True)
class Piece:
    place: Place
    content: Lines | Rows | RowGroup | Shaped
    is_wanted: bool = True  # false: its rows are only read to count them
    noted: Any = None  # what a first pass has learnt of its rows, for the second

    @property
    def is_text(self) -> bool:
        return isinstance(self.content, Lines) or (isinstance(self.content, Shaped) and self.content.is_text)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content.data) if isinstance(self.content, Lines) else self.content.size

    @property
    def rows(self) -> int:
        """How many, bad ones included."""
        if isinstance(self.content, Lines):
            return sum(1 for line in self.content.data.split(b"\n") if line and not line.isspace())
        return self.content.rows

    @property
    def is_read(self) -> bool:
        """Whether its rows came with it; others are read where they are shaped."""
        from vlcli.records.parquet import RowGroup

        return not isinstance(self.content, RowGroup | Shaped)


@dataclass(frozen=True)
class Reading:
    """How inputs are read; the same for all of them."""

    format: str | None = None
    renames: Mapping[str, str] | None = None
    image_bytes: bool = False
    image_root: Path | str | None = None


def pieces(found: Sequence[Source], reading: Reading, units: Sequence[Unit] | None = None) -> Iterator[Piece]:
    """All pieces of all sources in order, or those of `units` alone."""
    labels = _labels(found)
    renames = Renames(reading.renames)
    for number, source in enumerate(found):
        mine = None if units is None else [unit for unit in units if unit.source == number]
        if mine is not None and not mine:
            continue
        root = reading.image_root
        place = Place(
            number,
            source.name,
            source.folder if root is None else str(root),
            labels[source.folder] if root is None else "",
            embedded=False,
            alone=len(found) == 1,
        )
        with open_source(source, reading.format) as opened:
            for content in _contents(opened, reading, renames, mine):
                embedded = opened.kind == "parquet"
                yield Piece(replace(place, embedded=embedded), content)


def _contents(
    opened: Opened, reading: Reading, renames: Renames, units: list[Unit] | None
) -> Iterator[Lines | Rows | RowGroup]:
    source, name = opened.source, opened.source.name
    whole = units is None or units[0].is_whole
    if opened.kind == "jsonl":
        if whole:
            yield from blocks(opened.stream, file=name)
            return
        assert units is not None
        for unit in units:
            with unit.open() as stream:
                yield from blocks(stream, file=name, before=unit.first)
        return
    from vlcli.records import columnar

    if opened.kind == "arrow":
        yield from columnar.arrow_stream_rows(opened.stream, file=name)
        return
    if opened.compressed or source.path is None or name == STDIN or not os.path.isfile(source.path):
        kind = "Parquet" if opened.kind == "parquet" else "an Arrow file"
        raise UsageError(
            f"{name}: {kind} ends with its index and cannot be read from a pipe or inside gzip or zstd",
            remedy="give the file's own name",
        )
    if opened.kind != "parquet":
        yield from columnar.arrow_file_rows(source.path, file=name)
        return
    from vlcli.records.parquet import parquet_rows

    spans = [(None, 0)] if whole else [(range(unit.start, unit.end), unit.first) for unit in units or ()]
    for groups, first in spans:
        yield from parquet_rows(
            source.path,
            image_bytes=reading.image_bytes,
            renames=renames,
            file=name,
            groups=groups,
            first=first,
        )


class Shaping:
    """Makes batches of pieces; remembers which of the columns to be renamed it has met."""

    def __init__(self, renames: Mapping[str, str] | None) -> None:
        self.renames = Renames(renames)
        self._shaper: tuple[Any, Any] = (None, None)
        self._parquet: ParquetFile | None = None

    def batches(self, piece: Piece, on_bad: OnBad) -> Iterator[Batch]:
        place = piece.place
        assert not isinstance(piece.content, Shaped)
        if isinstance(piece.content, Lines):
            found = parse(
                piece.content,
                file=place.file,
                folder=place.folder,
                folder_label=place.label,
                renames=self.renames,
                on_bad=on_bad,
            )
        else:
            found = self._shaped(place, piece.content, on_bad)
        for batch in found:
            yield replace(batch, source=place.number)

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None

    def _read(self, content: Rows | RowGroup) -> Iterator[Rows]:
        from vlcli.records.parquet import ParquetFile, RowGroup

        if not isinstance(content, RowGroup):
            yield content
            return
        if self._parquet is None or self._parquet.path != content.path:
            self.close()
            self._parquet = ParquetFile(content.path, content.file)
        yield from self._parquet.read(content)

    def _shaped(self, place: Place, content: Rows | RowGroup, on_bad: OnBad) -> Iterator[Batch]:
        from vlcli.records.shaper import Shaper, settle

        for rows in self._read(content):
            key = (place, rows.table.schema.names, rows.metadata)
            if self._shaper[0] != key:
                names = settle(rows.table.schema, self.renames, place.file)
                if place.alone:  # a slip in --map shows before a row has gone anywhere
                    self.renames.check_all_seen()
                shaper = Shaper(
                    names,
                    rows.metadata,
                    file=place.file,
                    folder=place.folder,
                    folder_label=place.label,
                    embedded=place.embedded,
                )
                self._shaper = key, shaper
            if rows.table.num_rows:
                yield self._shaper[1].shape(rows.table, rows.first, rows.present, on_bad)


def first_rows(batch: Batch, bad_lines: Sequence[int], count: int) -> Batch:
    """Those of a batch that are among the first `count` rows of it and of the bad ones beside it (`bad_lines`)."""
    if len(batch) + len(bad_lines) <= count:
        return batch
    if count == 0:
        return batch.slice(0, 0)
    last = sorted([*batch.frame["line"].to_list(), *bad_lines])[count - 1]
    return batch.take(batch.frame["line"] <= last)


def _labels(found: Sequence[Source]) -> dict[str, str]:
    """Each input folder relative to what all share, so that equal names in two folders stay two images."""
    folders = {source.folder for source in found}
    if len(folders) < 2:
        return dict.fromkeys(folders, "")
    absolute = {folder: os.path.abspath(folder) for folder in folders}
    common = os.path.commonpath(list(absolute.values()))
    return {f: "" if a == common else os.path.relpath(a, common) for f, a in absolute.items()}

"""A public data set as the rows that every command reads: a stream of them, or a table with what was found odd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from vlcli.datasets.registry import DataSet, find
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError, UsageError
from vlcli.records.batch import Batch
from vlcli.records.columns import Renames
from vlcli.records.jsonl import Lines, parse
from vlcli.shards.pair_table import PairTable
from vlcli.shards.pairs import table_of

CHUNK = 8192  # rows of a batch
LISTED = ("split", "lang")  # columns that every table of a set has


@dataclass
class Reading:
    """One split of a set, as it is read: `rows()` can be asked for once, and what was counted stands behind it."""

    dataset: DataSet
    split: str
    source: Source
    image_ids: set[str] = field(default_factory=set)
    text_ids: set[int | str] = field(default_factory=set)
    nameless: int = 0  # texts without an id
    alone: int = 0  # images that no text describes
    loose: int = 0  # texts of which no image is known
    whole: bool = False

    def rows(self, head: int | None = None, *, pairs_only: bool = False) -> Iterator[Row]:
        """The rows, `head` of them at most. Raises what the reader of the set's files does."""
        found = self._reader()
        for row in found if head is None else islice(found, head):
            self.alone += row.text is None
            self.loose += row.image is None
            if row.image_id is not None:
                self.image_ids.add(row.image_id)
            if row.text_id is not None:  # the query of several rows
                self.text_ids.add(row.text_id)
            else:
                self.nameless += row.text is not None
            if row.is_pair or not pairs_only:
                yield row
        self.whole = head is None

    @property
    def texts(self) -> int:
        """How many texts there are: of those with an id each once."""
        return len(self.text_ids) + self.nameless

    def _reader(self) -> Iterator[Row]:
        tried: list[str] = []
        for form in self.dataset.forms:
            patterns = form.patterns.get(self.split, ())
            path = self.source.files.first(patterns)
            if path is not None:
                return form.rows(self.source, path, self.split)
            tried += patterns
        raise UsageError(
            f"{self.dataset.name}: no {' or '.join(dict.fromkeys(tried))} in {self.source.files.shown()}"
        )

    def remarks(self) -> list[str]:
        """What differs from the set as it was published, to be warned of. Of a part of it nothing is said."""
        if not self.whole:
            return []
        name = f"{self.dataset.name} {self.split}"
        counts = self.dataset.splits[self.split]
        expected = (
            (counts.images, len(self.image_ids), "images"),
            (counts.of(self.source.langs), self.texts, "texts"),
        )
        return [
            f"{name} has {found:,} {what} here, and {wanted:,} as it was published"
            for wanted, found, what in expected
            if wanted is not None and wanted != found
        ]

    def left_out(self) -> list[str]:
        """What is in the set and is no pair."""
        said = (
            (self.alone, "images that no text describes"),
            (self.loose, "texts of which no image is known"),
        )
        return [f"{count:,} {what}" for count, what in said if count]


def open_dataset(
    name: str,
    paths: Sequence[str],
    *,
    split: str | None = None,
    langs: Sequence[str] = (),
    task: str | None = None,
    image_root: Path | None = None,
) -> Reading:
    """One split of the set called `name` (default: the one that papers report), whose files are at or below `paths`.

    `langs` are those to read, default all. Raises UsageError for a name, a split, a language or a path that is not
    there.
    """
    dataset = find(name, task)
    for lang in langs:
        if lang not in dataset.langs:
            raise UsageError(f"{dataset.name} has no {lang}", remedy=f"it has {', '.join(dataset.langs)}")
    return Reading(
        dataset,
        dataset.split(split),
        Source(dataset.name, paths, image_root=image_root, langs=langs),
    )


def batches(reading: Reading, rows: Iterable[Row]) -> Iterator[Batch]:
    """The rows as if they came from a file of JSON lines."""
    left, before = iter(rows), 0
    while part := list(islice(left, CHUNK)):
        data = b"\n".join(orjson.dumps(row.columns(reading.split)) for row in part)
        yield from parse(
            Lines(data, before),
            file=reading.dataset.name,
            folder="",
            folder_label="",
            renames=Renames(None),
            on_bad=_refuse,
        )
        before += len(part)


def _refuse(line: int, cause: str, raw: Any) -> None:
    raise InputError(cause)


def load_dataset(
    reading: Reading, *, head: int | None = None, pairs_only: bool = False, columns: Sequence[str] = ()
) -> PairTable:
    """The whole split in memory, its pixels where they lie. The frame has `split` and `lang`, and `columns` (of
    `text_id` and `label`), null where the set has no such thing.

    Without `pairs_only` there are rows without a text, and rows without an image, whose `image_ids` are None.
    """
    return table_of(
        batches(reading, reading.rows(head, pairs_only=pairs_only)),
        source=reading.dataset.name,
        optional=[*LISTED, *columns],
        need_text=False,
        need_image=False,
    )

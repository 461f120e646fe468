"""The rows of a piece, in this process or another: read, their bad ones diverted, and those without an id named."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.columns import Renames
from vlcli.records.identity import Identity, Unnamed
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece, Shaped, Shaping, first_rows
from vlcli.records.rejects import RejectsWriter


class Bad(NamedTuple):
    """A row that cannot be used, as `BadRows.add` takes it."""

    file: str
    line: int
    cause: str
    raw: Any
    text_lines: bool


class Dropped(NamedTuple):
    """Rows that did not pass, as lines of the file of rejects ("" where none is written)."""

    lines: bytes
    rows: int


@dataclass
class Came:
    """What came of one piece, whatever was done with it."""

    rejects: list[Bad | Dropped] = field(default_factory=list)  # in input order
    read: int = 0  # rows, bad ones included
    unnamed: int = 0  # rows whose id was made here


def divert(came: Came, bad: BadRows, rejects: RejectsWriter | None) -> None:
    """Rows that are bad and rows that were dropped, in input order."""
    bad.seen += came.read
    for item in came.rejects:
        if isinstance(item, Bad):
            bad.add(item.file, item.line, item.cause, item.raw, text_lines=item.text_lines)
        elif rejects is not None:
            rejects.write_lines(item.lines, item.rows)


class PieceJob(Protocol):
    """What the readers of a run are told once."""

    @property
    def renames(self) -> dict[str, str]: ...
    @property
    def head(self) -> int | None:
        """Input rows that count, where one process reads all."""


class PieceReader:
    """Holds what is made once in a process; a context manager. `left` is how many input rows still count."""

    def __init__(self, job: PieceJob) -> None:
        self._shaping = Shaping(job.renames)
        self._identity = Identity()
        self.left = job.head

    @property
    def unmet(self) -> set[str]:
        """Columns of --map that no row has had here."""
        return set(self._shaping.renames.missing)

    def _read(self, piece: Piece, came: Came) -> Iterator[tuple[Batch, list[Bad]]]:
        if isinstance(piece.content, Shaped):
            for batch, bad in piece.content.load():
                came.read += len(batch) + len(bad)
                if self.left is not None:
                    self.left -= len(batch) + len(bad)
                yield batch, bad
            return
        diverted: list[Bad] = []
        name, is_text = piece.place.file, piece.is_text

        def on_bad(line: int, cause: str, raw: Any) -> None:
            diverted.append(Bad(name, line, cause, raw, is_text))

        for batch in self._shaping.batches(piece, on_bad):
            bad = list(diverted)
            diverted.clear()
            if self.left is not None:
                batch = first_rows(batch, [row.line for row in bad], self.left)
                bad = bad[: self.left - len(batch)]
                self.left -= len(batch) + len(bad)
            came.read += len(batch) + len(bad)
            yield batch, bad

    def _kept(self, piece: Piece, made: list[tuple[Batch, list[Bad]]], folder: Path) -> Piece:
        """The piece for a second reading, which parses nothing: what was `_read` of it waits in `folder`."""
        if not piece.is_read:
            return piece
        rows = sum(len(batch) + len(bad) for batch, bad in made)
        path = folder / uuid.uuid4().hex
        shaped = Shaped.save(path, made, rows, is_text=piece.is_text, unmet=self.unmet)
        return replace(piece, content=shaped)

    def _numbered(
        self, batches: list[Batch]
    ) -> Generator[Keys, NDArray[np.int64], list[tuple[Unnamed, NDArray[np.int64]]]]:
        """The batches, and of those of their rows that have no id how many equal ones came before."""
        unnamed = [self._identity.ask(batch) for batch in batches]
        keys = [one.keys for one in unnamed]
        ordinals = yield joined(keys)
        ends = np.cumsum([0, *map(len, keys)])
        return [(one, ordinals[ends[i] : ends[i + 1]]) for i, one in enumerate(unnamed)]

    def _named(self, batches: list[Batch]) -> Generator[Keys, NDArray[np.int64], list[Batch]]:
        """The batches with every id. Asks how often each of the keys came before."""
        numbered = yield from self._numbered(batches)
        return [one.batch.with_columns(one.ids(ordinals).ids) for one, ordinals in numbered]

    def close(self) -> None:
        """Give memory and files back."""
        self._identity.close()
        self._shaping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def joined(keys: list[Keys]) -> Keys:
    return np.concatenate([np.zeros(0, np.uint64), *keys])


def without_id(batches: list[Batch]) -> int:
    return sum(batch.frame["id"].null_count() for batch in batches)


class Unmet:
    """Columns that --map names and no row had: a slip, which is known when all rows have been there."""

    def __init__(self) -> None:
        self.names: set[str] | None = None  # None: there was no row

    def meet(self, read: int, unmet: set[str]) -> None:
        """What some rows, `read` of them, had not."""
        if read:
            self.names = unmet if self.names is None else self.names & unmet

    def check(self, renames: Mapping[str, str]) -> None:
        if self.names:
            slips = Renames(renames)
            slips.missing = self.names
            slips.check_all_seen()

"""What `tokenize` does with one piece of its input, in this process or another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.piece_reader import Came, PieceReader, without_id
from vlcli.curation.text_column import by_row, with_column
from vlcli.errors import UsageError
from vlcli.records.batch import Batch
from vlcli.records.encode import json_lines
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece
from vlcli.records.references import Relocator
from vlcli.text.tokenizers import LENGTHS, OTHER_LENGTH, load_tokenizer

IDS, POSITIONS = "input_ids", "positions"


@dataclass(frozen=True)
class Encoding:
    """How texts become ids. `label` is looked for in every text, or the value of `label_column` in its row's."""

    tokenizer: str = "wordpiece-zh"
    length: int | None = None
    label: str | None = None
    label_column: str | None = None

    def check(self) -> None:
        if self.label is not None and self.label_column is not None:
            raise UsageError("--find and --find-column both say what to find")
        if not (self.label is None or self.label.strip()):
            raise UsageError("--find: the label is empty")


@dataclass(frozen=True)
class TokenJob:
    """What the worker of a run is told once."""

    encoding: Encoding
    renames: dict[str, str]
    lines: Relocator | None = None  # rows become JSON lines for a reader there; None: they stay batches
    head: int | None = None


@dataclass
class Encoded(Came):
    """The rows of a piece with their ids."""

    rows: list[Batch] | bytes = field(default_factory=list)  # bytes: JSON lines
    written: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # texts, tokens, cut, found
    has_labels: bool = False  # whether a row had the column of labels
    unmet: set[str] = field(default_factory=set)  # of --map


class TokenWorker(PieceReader):
    """Holds the tokenizer. Raises UsageError for one that is not there, and for a length without room."""

    def __init__(self, job: TokenJob) -> None:
        super().__init__(job)
        self._encoding, self.lines = job.encoding, job.lines
        self._tokenizer = load_tokenizer(self._encoding.tokenizer)
        self._length = self._encoding.length or LENGTHS.get(self._encoding.tokenizer, OTHER_LENGTH)
        self._tokenizer.encode(["a"], self._length)

    def rules(self) -> dict[str, Any]:
        """For the lineage: what decides the ids."""
        return {"tokenizer": f"sha256:{self._tokenizer.fingerprint}", "length": self._length}

    def encode(self, piece: Piece) -> Generator[Keys, NDArray[np.int64], Encoded]:
        """Asks for the rows without an id how many equal ones came before; that alone where a piece is not wanted."""
        came = Encoded()
        found = list(self._read(piece, came))
        came.unnamed = without_id([batch for batch, _ in found])
        batches = yield from self._named([batch for batch, _ in found])
        if not piece.is_wanted:
            return came
        came.unmet = self.unmet
        rows = []
        for batch, (_, bad) in zip(batches, found, strict=True):
            came.rejects += bad
            column = self._encoding.label_column
            came.has_labels |= column is not None and _has_column(batch, column)
            if len(batch):
                rows.append(self._encoded(batch, came.counts))
        came.written = sum(map(len, rows))
        came.rows = rows
        if self.lines is not None:
            came.rows = b"".join([json_lines(batch, self.lines) for batch in rows])
        return came

    def _encoded(self, batch: Batch, counts: Counter[str]) -> Batch:
        lists: list[list[str] | None] = batch.frame["text"].to_list()
        texts = [text for row in lists for text in row or ()]
        ids, cut = self._tokenizer.encode(texts, self._length)
        counts.update(texts=len(texts), tokens=sum(map(len, ids)), cut=cut)
        batch = with_column(batch, IDS, by_row(batch, lists, ids), pl.List(pl.Int32()))
        if self._encoding.label is None and self._encoding.label_column is None:
            return batch
        wanted: list[Any] = [self._encoding.label] * len(lists)
        if self._encoding.label_column is not None:
            wanted = batch.column(self._encoding.label_column).to_list()
        labels = [
            label if isinstance(label, str) else ""
            for row, label in zip(lists, wanted, strict=True)
            for _ in row or ()
        ]
        places = self._tokenizer.find(texts, ids, labels)
        counts.update(found=sum(map(bool, places)))
        return with_column(batch, POSITIONS, by_row(batch, lists, places), pl.List(pl.List(pl.Int32())))


def _has_column(batch: Batch, name: str) -> bool:
    if isinstance(batch.rest, pl.DataFrame):
        return name in batch.frame.columns or name in batch.rest.columns
    return name in batch.frame.columns or any(name in row for row in batch.rest)

"""`read`: any input, row after row, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlcli.errors import InputError
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.pieces import Reading, Shaping, first_rows, pieces
from vlcli.records.sources import Source, repeatable, sources

__all__ = ["read", "repeatable"]


def read(
    inputs: Sequence[str],
    *,
    format: str | None = None,
    renames: Mapping[str, str] | None = None,
    head: int | None = None,
    image_bytes: bool = False,
    bad: BadRows | None = None,
    image_root: Path | str | None = None,
) -> Iterator[Batch]:
    """Batches of at most 65,536 rows from paths, globs, directories or stdin (`inputs` empty or `-`).

    format: jsonl, parquet or arrow instead of what the first bytes say. renames: old → new column names,
    before the public names that are known anyway. head: stop after that many input rows, bad ones counted.
    image_bytes: read the pixels inside Parquet files into `image_bytes` (those of Arrow streams always are).
    bad: where bad rows go; without it the first raises InputError. image_root: where relative references
    start, instead of the folder of their file.

    Raises UsageError for inputs that do not exist, at once; InputError for damaged ones, as they are read.
    """
    return _read(sources(inputs), Reading(format, renames, image_bytes, image_root), head, bad)


def _read(found: list[Source], reading: Reading, head: int | None, bad: BadRows | None) -> Iterator[Batch]:
    shaping = Shaping(reading.renames)
    left = head
    rows_seen = 0
    if left == 0:
        return
    for piece in pieces(found, reading):
        diverted = _Diverted(bad, piece.place.file, text_lines=piece.is_text)
        for batch in shaping.batches(piece, diverted):
            rows = len(batch) + len(diverted.pending)
            if left is not None and rows > left:
                batch = first_rows(batch, [line for line, _, _ in diverted.pending], left)
                rows = left
                diverted.pending = diverted.pending[: left - len(batch)]
            diverted.flush()
            rows_seen += rows
            if bad is not None:
                bad.seen += rows
            if len(batch):
                yield batch
            if left is not None:
                left -= rows
                if left == 0:
                    break
        if left == 0:
            break
    if rows_seen and head is None:
        shaping.renames.check_all_seen()
    if bad is not None:
        bad.judge()


class _Diverted:
    """The bad rows of the batch in hand, held until it is known that `--head` reaches them."""

    def __init__(self, bad: BadRows | None, file: str, *, text_lines: bool) -> None:
        self._bad, self._file = bad, file
        self.text_lines = text_lines
        self.pending: list[tuple[int, str, Any]] = []

    def __call__(self, line: int, cause: str, raw: Any) -> None:
        self.pending.append((line, cause, raw))

    def flush(self) -> None:
        for line, cause, raw in self.pending:
            if self._bad is None:
                place: dict[str, Any] = {"line": line} if self.text_lines else {"row": line}
                raise InputError(cause, file=self._file, **place)
            self._bad.add(self._file, line, cause, raw, text_lines=self.text_lines)
        self.pending.clear()

"""`read`: any input, row after row, in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.columns import Renames
from vlcli.records.sources import STDIN, Opened, Source, open_source, repeatable, sources

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
    return _read(sources(inputs), format, Renames(renames), head, image_bytes, bad, image_root)


def _read(
    found: list[Source],
    format: str | None,
    renames: Renames,
    head: int | None,
    image_bytes: bool,
    bad: BadRows | None,
    image_root: Path | str | None,
) -> Iterator[Batch]:
    labels = _labels(found)
    left = head
    rows_seen = 0
    for source in found:
        if left == 0:
            break
        folder = source.folder if image_root is None else str(image_root)
        label = labels[source.folder] if image_root is None else ""
        diverted = _Diverted(bad, source.name)
        with open_source(source, format) as opened:
            diverted.text_lines = opened.kind == "jsonl"
            alone = len(found) == 1
            for batch in _batches(opened, folder, label, renames, image_bytes, diverted, alone):
                rows = len(batch) + len(diverted.pending)
                if left is not None and rows > left:
                    batch, rows = _cut(batch, diverted, left), left
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
    if rows_seen and head is None:
        renames.check_all_seen()
    if bad is not None:
        bad.judge()


class _Diverted:
    """The bad rows of the batch in hand, held until it is known that `--head` reaches them."""

    def __init__(self, bad: BadRows | None, file: str) -> None:
        self._bad, self._file = bad, file
        self.text_lines = True
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


def _cut(batch: Batch, diverted: _Diverted, left: int) -> Batch:
    """The first `left` rows of a batch together with the bad ones among them."""
    lines = sorted([*batch.frame["line"].to_list(), *(line for line, _, _ in diverted.pending)])
    last = lines[left - 1]
    diverted.pending = [item for item in diverted.pending if item[0] <= last]
    return batch.take(batch.frame["line"] <= last)


def _batches(
    opened: Opened,
    folder: str,
    label: str,
    renames: Renames,
    image_bytes: bool,
    diverted: _Diverted,
    alone: bool,
) -> Iterator[Batch]:
    source, name = opened.source, opened.source.name
    if opened.kind == "jsonl":
        from vlcli.records.jsonl import read_jsonl

        return read_jsonl(
            opened.stream, file=name, folder=folder, folder_label=label, renames=renames, on_bad=diverted
        )
    from vlcli.records import columnar

    def make(schema: Any) -> columnar.Shaper:
        shaper = columnar.Shaper(
            schema,
            file=name,
            folder=folder,
            folder_label=label,
            renames=renames,
            on_bad=diverted,
            embedded=opened.kind == "parquet",
        )
        if alone:  # a slip in --map shows before a row has gone anywhere
            renames.check_all_seen()
        return shaper

    if opened.kind == "arrow":
        return columnar.read_arrow_stream(opened.stream, make=make, file=name)
    if opened.compressed or source.path is None or name == STDIN or not os.path.isfile(source.path):
        kind = "Parquet" if opened.kind == "parquet" else "an Arrow file"
        raise UsageError(
            f"{name}: {kind} ends with its index and cannot be read from a pipe or inside gzip or zstd",
            remedy="give the file's own name",
        )
    if opened.kind == "parquet":
        return columnar.read_parquet(source.path, image_bytes=image_bytes, make=make, file=name)
    return columnar.read_arrow_file(source.path, make=make, file=name)


def _labels(found: list[Source]) -> dict[str, str]:
    """Each input folder relative to what all share, so that equal names in two folders stay two images."""
    folders = {source.folder for source in found}
    if len(folders) < 2:
        return dict.fromkeys(folders, "")
    absolute = {folder: os.path.abspath(folder) for folder in folders}
    common = os.path.commonpath(list(absolute.values()))
    return {f: "" if a == common else os.path.relpath(a, common) for f, a in absolute.items()}

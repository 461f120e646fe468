"""Rows with their image bytes, one after another, from whatever pairs lie in: files, pipes, tars, shard directories."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from vlcli.errors import InputError
from vlcli.images.resolve import ImageReader
from vlcli.records.bad import BadRows
from vlcli.records.reader import read
from vlcli.shards.layout import is_shard_directory
from vlcli.shards.pair_table import PairTable
from vlcli.shards.pairs import load_pairs
from vlcli.shards.rows import Row, rows_of
from vlcli.shards.whole import whole_directory

Skip = Callable[[int], bool]


def stream_rows(
    inputs: Sequence[str],
    reader: ImageReader,
    *,
    bad: BadRows,
    skip: Skip = lambda number: False,
    format: str | None = None,
    renames: Mapping[str, str] | None = None,
    image_root: Path | None = None,
    head: int | None = None,
) -> Iterator[Row]:
    """All rows in input order, numbered from 0; of those that `skip` names, no image is read.

    At most one shard's rows, or a few hundred images, are in memory. Options but `head` apply to rows, not to shards.
    Raises what `records.read` and `load_pairs` raise.
    """
    number = 0
    for kind, paths in kinds(inputs):
        left = None if head is None else head - number
        if left is not None and left <= 0:
            break
        if kind == "tar":
            found = _tar_rows(load_pairs(paths, group=None, head=left), number, skip)
        else:
            batches = read(
                paths,
                format=format,
                renames=renames,
                head=left,
                image_bytes=True,
                image_root=image_root,
                bad=bad,
            )
            first = number
            found = (
                replace(row, number=first + row.number)
                for row in rows_of(batches, reader, skip=lambda n, first=first: skip(first + n))  # type: ignore[misc]
            )
        for row in found:
            bad.seen += kind == "tar"  # the reader of rows counts its own
            yield row
            number += 1


def kinds(inputs: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The inputs in order: each tar alone, what is not in tars together with its neighbours."""
    rows: list[str] = []
    for path in inputs:
        tars = whole_directory(path) if is_shard_directory(path) else None
        if tars is None and not path.endswith(".tar"):
            rows.append(path)
            continue
        if rows:
            yield "rows", rows
            rows = []
        for tar in tars if tars is not None else [path]:
            yield "tar", [str(tar)]
    if rows or not inputs:
        yield "rows", rows


def _tar_rows(table: PairTable, first: int, skip: Skip) -> Iterator[Row]:
    for i, (name, image_id, texts) in enumerate(zip(table.ids, table.image_ids, table.texts, strict=True)):
        data, problem = None, ""
        if not skip(first + i):
            try:
                data = table.image_bytes(i)
            except InputError as error:
                problem = str(error)
        yield Row(
            number=first + i,
            file=table.source,
            line=i,
            text_lines=False,
            reference=None,
            id=name,
            image_id=image_id,
            texts=texts,
            candidates=table.candidates[i],
            query=None,
            url=None,
            kept={},
            data=data,
            problem=problem,
            public_problem=problem,
            fingerprint=hashlib.sha256(orjson.dumps([name, image_id, texts])).digest(),
        )

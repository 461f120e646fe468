"""Rows for those who add a column to them: whatever pairs lie in, files, pipes, tars, shard directories, as batches
whose pictures can be opened by their references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from vlcli.records.bad import BadRows
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.reader import read
from vlcli.shards.pairs import shard_rows
from vlcli.shards.rows import FIXED_COLUMNS
from vlcli.shards.stream import kinds
from vlcli.shards.whole import read_shard


def row_batches(
    inputs: Sequence[str],
    *,
    bad: BadRows,
    format: str | None = None,
    renames: Mapping[str, str] | None = None,
    image_root: Path | None = None,
    head: int | None = None,
) -> Iterator[Batch]:
    """Batches in input order; options but `head` apply to rows, not to shards. At most one shard's rows, or a batch of
    `records.read`, are in memory. Raises what `records.read` and `read_shard` raise."""
    done = 0
    for kind, paths in kinds(inputs):
        left = None if head is None else head - done
        if left is not None and left <= 0:
            break
        before = bad.seen
        if kind == "tar":
            batch = shard_batch(paths[0], left)
            bad.seen += len(batch)
            yield batch
        else:
            yield from read(paths, format=format, renames=renames, head=left, bad=bad, image_root=image_root)
        done += bad.seen - before


def shard_batch(tar: str, head: int | None = None) -> Batch:
    """The rows of one whole shard, their pictures as members of it."""
    shard = read_shard(tar)
    rows = shard_rows(shard, len(shard) if head is None else min(head, len(shard)))
    extension = shard.image_extension
    columns: dict[str, list[object]] = {name: [row.get(name) for row in rows] for name in COLUMNS}
    columns["text"] = [row["texts"] for row in rows]
    columns["image"] = [
        f"{tar}#{members[extension].name}" if extension else None for _, members in shard.samples[: len(rows)]
    ]
    columns["line"] = list(range(len(rows)))
    columns |= {"text_is_scalar": [False] * len(rows), "image_bytes": [None] * len(rows)}
    frame = pl.DataFrame(columns, schema=COLUMNS | BOOKKEEPING, strict=False)
    taken = {*FIXED_COLUMNS, *COLUMNS}
    rest = [{k: v for k, v in row.items() if k not in taken and v is not None} for row in rows]
    return Batch(frame, rest, file=tar, text_lines=False)

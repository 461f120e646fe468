"""Reads pairs into a table: from shards, from tars of other tools, from rows."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from vlcli.errors import InputError, UsageError
from vlcli.parallel import Crew
from vlcli.records.batch import Batch
from vlcli.shards.layout import is_shard_directory
from vlcli.shards.pair_table import Damaged, PairTable
from vlcli.shards.pixels import ReferencePart, TarPart
from vlcli.shards.reader import open_tar
from vlcli.shards.rows import place, row_texts
from vlcli.shards.tar import Member
from vlcli.shards.whole import Shard, read_shard, recorded_pairs, whole_directory

LARGE = 16 << 30  # bytes of shards; processes that walk their headers take a second to start


def load_pairs(
    paths: Sequence[str],
    *,
    renames: Mapping[str, str] | None = None,
    group: str | None = "family",
    columns: Sequence[str] = (),
    optional: Sequence[str] = (),
    image_root: Path | None = None,
    head: int | None = None,
    need_text: bool = True,
    skip_damaged: bool = False,
    jobs: int = 1,
) -> PairTable:
    """Pairs from shard directories, `.tar` files, or anything that `records.read` accepts, in the order
    given.

    `renames` is old → new and applies to rows, not to shards. `columns` are kept in `PairTable.frame`;
    one that no input has is a UsageError, and null throughout when it is among the `optional` ones. With
    `need_text=False` rows without a text are allowed (labelled images). Raises InputError for a damaged
    shard (with `skip_damaged` it is passed over, and in `PairTable.damaged`), a row without image or text.
    With `jobs`, as many processes look through the shards where these are large.
    """
    from vlcli.records.reader import read

    table = PairTable(source=" ".join(paths))
    frames: list[pl.DataFrame] = []
    rows: list[str] = []
    wanted = [*columns, *optional]

    def left() -> int | None:
        return None if head is None else max(0, head - len(table))

    def flush_rows() -> None:
        if rows:
            batches = read(rows, renames=renames, head=left(), image_root=image_root)
            frames.append(_add_rows(table, batches, group, wanted, need_text))
            rows.clear()

    for path in paths:
        tars = (
            whole_directory(path)
            if is_shard_directory(path)
            else [Path(path)]
            if path.endswith(".tar")
            else None
        )
        if tars is None:
            rows.append(path)
            continue
        flush_rows()
        if not tars:
            raise InputError("no tar in it", file=path)
        for piece in _tables(ShardReader(group, wanted, skip_damaged, need_text), tars, left(), jobs):
            table.extend(piece)
            frames.append(piece.frame)
    flush_rows()
    if not paths:
        batches = read([], renames=renames, head=head, image_root=image_root)
        frames.append(_add_rows(table, batches, group, wanted, need_text))
    table.frame = _join(frames, columns, optional, len(table))
    return table


def _join(
    frames: list[pl.DataFrame], columns: Sequence[str], optional: Sequence[str], rows: int
) -> pl.DataFrame:
    frame = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
    missing = [
        name for name in columns if name not in frame.columns or (rows and frame[name].null_count() == rows)
    ]
    if missing and rows:
        raise UsageError(f"no row has a column {missing[0]!r}")
    if not rows:
        return pl.DataFrame({name: [] for name in [*columns, *optional]})
    absent = [pl.lit(None).alias(name) for name in optional if name not in frame.columns]
    return frame.with_columns(absent).select([*columns, *optional])


def _as_group(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def table_of(
    batches: Iterable[Batch],
    *,
    source: str,
    group: str | None = "family",
    columns: Sequence[str] = (),
    optional: Sequence[str] = (),
    need_text: bool = True,
    need_image: bool = True,
) -> PairTable:
    """Pairs from batches that are at hand; for options and errors see `load_pairs`.

    With `need_image=False` rows without an image are allowed (queries of which nobody says what they show); their
    `image_ids` are None.
    """
    table = PairTable(source=source)
    frame = _add_rows(table, batches, group, [*columns, *optional], need_text, need_image)
    table.frame = _join([frame], columns, optional, len(table))
    return table


def _add_rows(
    table: PairTable,
    batches: Iterable[Batch],
    group: str | None,
    columns: Sequence[str],
    need_text: bool,
    need_image: bool = True,
) -> pl.DataFrame:
    from vlcli.records.identity import Identity

    part, identity, frames = ReferencePart(), Identity(), [pl.DataFrame()]
    for raw in batches:
        batch = identity.assign(raw)
        frame = batch.frame
        texts = row_texts(batch)
        for i, (reference, data) in enumerate(zip(frame["image"], frame["image_bytes"], strict=True)):
            if need_image and reference is None and data is None:
                raise InputError("no image", **place(batch, i))
            if need_text and not texts[i]:
                raise InputError("no text", **place(batch, i))
            part.add(reference, data)
        table.ids += frame["id"].to_list()
        table.image_ids += frame["image_id"].to_list()
        table.texts += texts
        table.candidates += [list(c or ()) for c in frame["text_candidates"].to_list()]
        table.groups += [_as_group(v) for v in batch.column(group)] if group else [None] * len(batch)
        frames.append(pl.DataFrame([batch.column(name).alias(name) for name in columns]))
    part.flush()
    table._add_part(part)
    return pl.concat(frames, how="diagonal_relaxed")


class ShardReader:
    """Tables of single shards."""

    def __init__(
        self, group: str | None, columns: Sequence[str], skip_damaged: bool, need_text: bool = True
    ) -> None:
        self.group, self.columns, self.skip_damaged, self.need_text = group, columns, skip_damaged, need_text

    def table(self, tar: Path, head: int | None = None) -> PairTable:
        """The pairs of one tar; of a damaged one none, where that is allowed."""
        table = PairTable(source=str(tar))
        try:
            shard = read_shard(tar)
        except InputError as error:
            if not self.skip_damaged:
                raise
            table.damaged.append(Damaged(str(tar), recorded_pairs(tar), str(error)))
            return table
        table.frame = _add_shard(table, shard, self.group, self.columns, head, self.need_text)
        return table

    def read(self, tar: Path) -> Generator[None, None, PairTable]:
        """As `Crew` wants its work: this one asks nothing."""
        return self.table(tar)
        yield


def _tables(reader: ShardReader, tars: list[Path], head: int | None, jobs: int) -> Iterator[PairTable]:
    """The tables of tars in order, until there are `head` pairs."""
    if jobs > 1 and head is None and sum(tar.stat().st_size for tar in tars) > LARGE:
        make = (reader.group, reader.columns, reader.skip_damaged, reader.need_text)
        with Crew(ShardReader, make, min(jobs, len(tars))) as crew:
            yield from crew.run("read", tars, lambda number, question: None)
        return
    for tar in tars:
        if head == 0:
            break
        table = reader.table(tar, head)
        head = None if head is None else head - len(table)
        yield table


def _add_shard(
    table: PairTable,
    shard: Shard,
    group: str | None,
    columns: Sequence[str],
    head: int | None,
    need_text: bool,
) -> pl.DataFrame:
    tar = shard.path
    extension = shard.image_extension
    if extension is None and len(shard):
        raise InputError("its samples have no image", file=str(tar))
    spans = [(members[extension].data, members[extension].size) for _, members in shard.samples if extension]
    part = TarPart(str(tar), np.array(spans, np.int64).reshape(-1, 2)[:head])
    rows = shard_rows(shard, len(part))
    for (key, _), row in zip(shard.samples, rows, strict=False):
        if need_text and not row["texts"]:
            raise InputError(f"sample {key} has no text", file=str(tar))
        table.ids.append(row["id"])
        table.image_ids.append(row["image_id"])
        table.texts.append(row["texts"])
        table.candidates.append(list(row.get("text_candidates") or ()))
        table.groups.append(_as_group(row.get(group)) if group else None)
    table._add_part(part)
    return pl.DataFrame(
        {name: pl.Series([row.get(name) for row in rows], strict=False) for name in columns if rows}
    )


def shard_rows(shard: Shard, n: int) -> list[dict[str, Any]]:
    """One dict for each of the first n samples, with id, image_id and texts; from the sidecar, else from the
    members.
    """
    if shard.rows is not None:
        return shard.rows[:n] if shard.ours else [_foreign(row) for row in shard.rows[:n]]
    fd = open_tar(shard.path)
    try:
        return [_from_members(shard.path, fd, *sample) for sample in shard.samples[:n]]
    finally:
        os.close(fd)


def _foreign(row: dict[str, Any]) -> dict[str, Any]:
    """A row of img2dataset's sidecar (or json member) in our terms."""
    texts = row.get("texts") or row.get("text") or row.get("caption")
    row["texts"] = [texts] if isinstance(texts, str) else list(_strings(texts))
    row["image_id"] = str(row.get("image_id") or row.get("sha256") or row.get("url") or row["key"])
    row["id"] = str(row.get("id") or row.get("uid") or row["key"])
    return row


def _strings(values: Any) -> Iterable[str]:
    return (v for v in values or () if isinstance(v, str) and v.strip())


def _from_members(path: str, fd: int, key: str, found: Mapping[str, Member]) -> dict[str, Any]:
    members = {e: os.pread(fd, found[e].size, found[e].data) for e in ("json", "txt") if e in found}
    row: dict[str, Any] = {}
    try:
        row = orjson.loads(members.get("json", b"{}"))
        if not isinstance(row, dict):
            raise ValueError("not an object")
        caption = members.get("txt", b"").decode("utf-8").strip()
    except ValueError as error:
        raise InputError(f"sample {key}: {error}", file=path) from None
    if caption:
        row.setdefault("caption", caption)
        row["caption"] = row["caption"] or caption
    return _foreign({**row, "key": key})

"""Rows into a directory of shards: the stream, its resumption, and what is written when all shards stand."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from vlcli import __version__
from vlcli.errors import InputError, UsageError
from vlcli.images.resolve import ImageReader
from vlcli.records.atomic import atomic_file, write_json
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.shards.layout import (
    COMMITTED,
    IMAGE_EXTENSIONS,
    LAYOUT_VERSION,
    MANIFEST,
    PER_SHARD,
    PRIVATE,
    RUN,
    SIZES,
    SUCCESS,
    UNAVAILABLE,
    UNDECODABLE,
    is_leftover,
    is_shard_file,
    shard_name,
)
from vlcli.shards.pack import PackedImage, pack_image
from vlcli.shards.reader import read_json, read_sidecar
from vlcli.shards.rows import Row, rows_of
from vlcli.shards.writer import CommittedShard, PackedRow, write_shard


@dataclass(frozen=True)
class Options:
    """What decides the bytes, besides the rows: recorded, and compared on `--resume`."""

    per_shard: int = PER_SHARD
    encode: str = "keep"  # keep: the extension of the first good image; else jpg, png or webp
    resize: int | None = None  # short side in pixels, only downwards

    def __post_init__(self) -> None:
        if self.encode not in ("keep", *IMAGE_EXTENSIONS):
            raise UsageError(f"--encode {self.encode!r} is not keep, {', '.join(IMAGE_EXTENSIONS)}")

    def recorded(self) -> dict[str, Any]:
        return {
            "layout": LAYOUT_VERSION,
            "per-shard": self.per_shard,
            "encode": self.encode,
            "resize": self.resize,
        }


@dataclass
class Totals:
    rows: int = 0
    samples: int = 0
    shards: int = 0
    bytes: int = 0  # of the tars
    skipped: int = 0  # shards that stood already
    extension: str | None = None
    committed: list[CommittedShard] = field(default_factory=list)

    def add(self, shard: CommittedShard, *, skipped: bool) -> None:
        self.rows += shard.rows
        self.samples += shard.samples
        self.shards += 1
        self.bytes += shard.tar.bytes
        self.skipped += skipped
        self.extension = self.extension or shard.extension
        self.committed.append(shard)


class ShardDataset:
    """An output directory, claimed: `write` fills it, once.

    Raises UsageError when it is not empty and neither `force` (its shards are removed) nor `resume` was
    given, or when what is to be resumed was written with other options.
    """

    def __init__(
        self,
        directory: Path,
        options: Options,
        *,
        force: bool = False,
        resume: bool = False,
        command_line: list[str] | None = None,
    ) -> None:
        self.directory, self.options = directory, options
        self._standing: dict[int, CommittedShard] = {}
        self._recorded: dict[int, CommittedShard] = {}
        self._failures: tuple[int, dict[int, tuple[str, str]]] = (-1, {})  # of the standing shard at hand
        self._run = {
            "version": __version__,
            "options": options.recorded(),
            "command": command_line or [],
            "started": time.time(),
            "finished": None,
        }
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"{directory}: not a directory")
        if directory.is_dir() and any(directory.iterdir()):
            if resume:
                self._load()
            elif force:
                self._clear()
            else:
                raise UsageError(
                    f"{directory}: not empty",
                    remedy="--resume finishes what stands there, --force replaces it",
                )

    def _clear(self) -> None:
        # sizes.json first: from here on nothing in the directory claims to be whole.
        (self.directory / SIZES).unlink(missing_ok=True)
        for path in sorted(self.directory.iterdir()):
            if is_shard_file(path.name) and path.is_file():
                path.unlink()
        for name in (MANIFEST, RUN, COMMITTED):
            (self.directory / name).unlink(missing_ok=True)

    def _load(self) -> None:
        run = self.directory / RUN
        if not run.exists():
            raise UsageError(
                f"{self.directory}: nothing to resume ({RUN} is missing)", remedy="--force starts anew"
            )
        before, now = read_json(run).get("options", {}), self.options.recorded()
        for name, value in now.items():
            if before.get(name) != value:
                raise UsageError(
                    f"{self.directory}: --resume with another --{name}: {before.get(name)} then, {value} now",
                    remedy="give the same, or --force to start anew",
                )
        journal = self.directory / COMMITTED
        for line in journal.read_bytes().splitlines() if journal.exists() else ():
            try:
                shard = CommittedShard.from_json(line)
            except (ValueError, TypeError, KeyError):
                continue  # the line that a killed run did not finish: its shard is written again
            self._recorded[shard.shard] = shard
        for path in self.directory.iterdir():
            if is_leftover(path.name):
                path.unlink()
        self._standing = {n: s for n, s in self._recorded.items() if s.stands_in(self.directory)}

    def write(
        self,
        batches: Iterator[Batch],
        reader: ImageReader,
        bad: BadRows,
        *,
        expect: int | None = None,
        jobs: int = 1,
        on_shard: Callable[[CommittedShard, bool], None] = lambda shard, skipped: None,
    ) -> Totals:
        """Shard all rows; the manifest and sizes.json come last.

        Raises InputError (exit 3) for more bad rows than `bad` allows, a row count other than `expect`, and
        whatever `batches` raises: then the shard at hand leaves nothing behind and sizes.json does not
        appear. UsageError when a shard to be skipped was made from other rows.
        """
        (self.directory / PRIVATE).mkdir(parents=True, exist_ok=True)
        write_json(self.directory / RUN, self._run, force=True)
        with atomic_file(
            self.directory / COMMITTED, force=True
        ) as journal:  # without a line a killed run tore
            for shard in self._standing.values():
                journal.write(shard.to_json())
        totals = Totals(extension=None if self.options.encode == "keep" else self.options.encode)
        known = {s.extension for s in self._recorded.values() if s.extension is not None}
        if totals.extension is None and known:
            totals.extension = min(known)
        rows = rows_of(batches, reader, skip=lambda n: n // self.options.per_shard in self._standing)
        packed = self._packed(rows, totals, bad, expect, jobs)
        for number, group in groupby(packed, key=lambda p: p.row.number // self.options.per_shard):
            if number in self._standing:
                shard = self._verified(number, group)
            else:
                for name in (SIZES, MANIFEST):  # of an earlier, shorter run: no longer true from here on
                    (self.directory / name).unlink(missing_ok=True)
                shard = write_shard(self.directory, number, self.options.per_shard, group)
                self._record(shard)
            totals.add(shard, skipped=number in self._standing)
            on_shard(shard, number in self._standing)
        if surplus := [n for n in self._recorded if n >= totals.shards]:
            raise UsageError(
                f"{self.directory}: --resume with other input: {totals.shards} shards of it, "
                f"but shard {shard_name(min(surplus))} stands there too",
                remedy="--force starts anew",
            )
        self._finish(totals)
        return totals

    def _packed(
        self, rows: Iterator[Row], totals: Totals, bad: BadRows, expect: int | None, jobs: int
    ) -> Iterator[PackedRow]:
        """The rows with packed images, in order, a few being decoded at a time.

        Its end is where counts are judged: the last shard is still open then, and is not committed when they
        are wrong.
        """
        waiting: deque[tuple[Row, Future[PackedImage] | PackedRow]] = deque()
        count, extension = 0, totals.extension

        def done() -> PackedRow:
            nonlocal extension
            row, result = waiting.popleft()
            packed = result if isinstance(result, PackedRow) else _settled(row, result)
            if packed.image is not None:
                extension = packed.image.extension
            if packed.message is not None:
                cause = row.problem or packed.message
                line = -1 if row.line is None else row.line
                bad.add(row.file, line, cause, {"id": row.id, "text": row.texts}, text_lines=row.text_lines)
            return packed

        with ThreadPoolExecutor(jobs, "pack") as pool:
            for row in rows:
                count += 1
                if row.number // self.options.per_shard in self._standing:
                    waiting.append((row, self._outcome(row)))
                elif row.data is None:
                    waiting.append((row, PackedRow(row, None, UNAVAILABLE, row.public_problem)))
                elif not row.texts:
                    waiting.append((row, PackedRow(row, None, UNDECODABLE, "no text")))
                else:
                    while (
                        extension is None and waiting
                    ):  # nobody knows the extension before the first good image
                        yield done()
                    job = pool.submit(pack_image, row.data, extension, self.options.resize)
                    waiting.append((row, job))
                while len(waiting) > 4 * jobs:
                    yield done()
            while waiting:
                yield done()
        bad.judge()
        came = max(count, bad.seen)  # with the rows that the reader diverted
        if expect is not None and came != expect:
            raise InputError(f"{came} rows came, --expect {expect}", remedy="the input is not whole")

    def _outcome(self, row: Row) -> PackedRow:
        """What became of a row of a shard that stands already: its failure counts in this run too."""
        number, place = divmod(row.number, self.options.per_shard)
        if self._failures[0] != number:
            sidecar = self.directory / self._standing[number].sidecar.name
            statuses = read_sidecar(sidecar, ["status", "error_message"]).to_pylist()
            failed = {i: (s["status"], s["error_message"]) for i, s in enumerate(statuses)}
            self._failures = number, {i: f for i, f in failed.items() if f[0] != SUCCESS}
        return PackedRow(row, None, *self._failures[1].get(place, (SUCCESS, None)))

    def _verified(self, number: int, group: Iterator[PackedRow]) -> CommittedShard:
        digest, recorded = hashlib.sha256(), self._standing[number]
        count = 0
        for packed in group:
            digest.update(packed.row.fingerprint)
            count += 1
        if digest.hexdigest() != recorded.input:
            what = f"{recorded.rows} rows then, {count} now" if count != recorded.rows else "its rows changed"
            raise UsageError(
                f"{self.directory}: --resume with other input: shard {shard_name(number)}: {what}",
                remedy="give the same input, or --force to start anew",
            )
        return recorded

    def _record(self, shard: CommittedShard) -> None:
        with open(self.directory / COMMITTED, "ab") as journal:
            journal.write(shard.to_json())
            journal.flush()
            os.fsync(journal.fileno())

    def _finish(self, totals: Totals) -> None:
        with atomic_file(self.directory / MANIFEST, force=True) as file:
            for shard in totals.committed:
                for part in (shard.tar, shard.sidecar):
                    line = {
                        "name": part.name,
                        "bytes": part.bytes,
                        "samples": shard.samples,
                        "sha256": part.sha256,
                    }
                    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._run |= {"finished": time.time(), "rows": totals.rows, "samples": totals.samples}
        write_json(self.directory / RUN, self._run, force=True)
        sizes = {shard.tar.name: shard.samples for shard in totals.committed}
        write_json(self.directory / SIZES, sizes, force=True)


def _settled(row: Row, job: Future[PackedImage]) -> PackedRow:
    try:
        return PackedRow(row, job.result())
    except ValueError as error:
        return PackedRow(row, None, UNDECODABLE, " ".join(str(error).split()))


def count_rows(batches: Iterator[Batch]) -> int:
    """How many rows there are, for `--dry-run`."""
    return sum(len(batch) for batch in batches)

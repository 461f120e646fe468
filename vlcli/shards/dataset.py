"""Rows into shards: the stream, its order, and its resumption."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

from vlcli.errors import InputError, UsageError
from vlcli.images.resolve import ImageReader
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.shards.layout import SUCCESS, UNAVAILABLE, UNDECODABLE, find_tars, shard_name
from vlcli.shards.output import OutputDirectory
from vlcli.shards.pack import PackedImage, pack_image
from vlcli.shards.reader import read_sidecar
from vlcli.shards.rows import Row, rows_of
from vlcli.shards.writer import CommittedShard, PackedRow, Source, write_shard


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


class Sharder:
    """Writes all rows into a claimed directory, once."""

    def __init__(self, output: OutputDirectory) -> None:
        self._output, self._options = output, output.options
        self._failures: tuple[int, dict[int, tuple[str, str]]] = (-1, {})  # of the standing shard at hand

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
        appear. UsageError when a shard to be skipped was made from other rows, or another run writes into
        the directory.
        """
        try:
            return self._write(batches, reader, bad, expect, jobs, on_shard)
        finally:
            self._output.lock.release()

    def _write(
        self,
        batches: Iterator[Batch],
        reader: ImageReader,
        bad: BadRows,
        expect: int | None,
        jobs: int,
        on_shard: Callable[[CommittedShard, bool], None],
    ) -> Totals:
        output = self._output
        totals = Totals(extension=None if self._options.encode == "keep" else self._options.encode)
        known = {s.extension for s in output.recorded.values() if s.extension is not None}
        if totals.extension is None and known:
            totals.extension = min(known)
        rows = rows_of(batches, reader, skip=lambda n: n // self._options.per_shard in output.standing)
        packed = self._packed(rows, totals, bad, expect, jobs)
        for number, group in groupby(packed, key=lambda p: p.row.number // self._options.per_shard):
            if not totals.shards:
                output.begin()
            if skipped := number in output.standing:
                shard = self._verified(number, group)
            else:
                output.unfinish()  # an earlier, shorter run may have come to its end
                per_shard, rules = self._options.per_shard, self._options.recorded()
                shard = write_shard(output.path, number, per_shard, group, rules)
                output.record(shard)
            totals.add(shard, skipped=skipped)
            on_shard(shard, skipped)
        stems = (tar.stem for tar in find_tars(output.path)) if totals.shards else ()
        there = {int(stem) for stem in stems if stem.isdecimal()} | output.recorded.keys()
        if surplus := [n for n in there if n >= totals.shards]:
            raise UsageError(
                f"{output.path}: --resume with other input: {totals.shards} shards of it, "
                f"but shard {shard_name(min(surplus))} stands there too",
                remedy="--force starts anew",
            )
        if (
            totals.shards
        ):  # no rows, no data set: an upstream that failed before its first row leaves nothing here
            output.finish(totals.committed)
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
                bad.add(row.file, line, cause, row.source(), text_lines=row.text_lines)
            return packed

        with ThreadPoolExecutor(jobs, "pack") as pool:
            for row in rows:
                count += 1
                if row.number // self._options.per_shard in self._output.standing:
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
                    job = pool.submit(pack_image, row.data, extension, self._options.resize)
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
        number, place = divmod(row.number, self._options.per_shard)
        if self._failures[0] != number:
            sidecar = self._output.path / self._output.standing[number].sidecar.name
            statuses = read_sidecar(sidecar, ["status", "error_message"]).to_pylist()
            failed = {i: (s["status"], s["error_message"]) for i, s in enumerate(statuses)}
            self._failures = number, {i: f for i, f in failed.items() if f[0] != SUCCESS}
        return PackedRow(row, None, *self._failures[1].get(place, (SUCCESS, None)))

    def _verified(self, number: int, group: Iterator[PackedRow]) -> CommittedShard:
        source, recorded = Source(), self._output.standing[number]
        count = 0
        for packed in group:
            source.add(packed.row)
            count += 1
        if source.fingerprint != recorded.input:
            what = f"{recorded.rows} rows then, {count} now" if count != recorded.rows else "its rows changed"
            raise UsageError(
                f"{self._output.path}: --resume with other input: shard {shard_name(number)}: {what}",
                remedy="give the same input, or --force to start anew",
            )
        return recorded


def _settled(row: Row, job: Future[PackedImage]) -> PackedRow:
    try:
        return PackedRow(row, job.result())
    except ValueError as error:
        return PackedRow(row, None, UNDECODABLE, " ".join(str(error).split()))


def count_rows(batches: Iterator[Batch]) -> int:
    """How many rows there are, for `--dry-run`."""
    return sum(len(batch) for batch in batches)

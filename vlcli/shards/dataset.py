"""Rows into shards: the stream, its order, and its resumption."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, groupby

from vlcli.curation.tally import Checksum
from vlcli.errors import InputError, UsageError
from vlcli.images.resolve import ImageReader
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.shards.layout import RETRIED, SUCCESS, UNAVAILABLE, UNDECODABLE, sample_key, shard_name
from vlcli.shards.output import OutputDirectory
from vlcli.shards.pack import PackedImage, pack_image
from vlcli.shards.rows import Row, rows_of
from vlcli.shards.standing import StoredImages, read_failures
from vlcli.shards.writer import CommittedShard, PackedRow, Source, write_shard


@dataclass
class Totals:
    rows: int = 0
    samples: int = 0
    shards: int = 0
    bytes: int = 0  # of the tars
    skipped: int = 0  # shards that stood already
    extension: str | None = None
    came: Checksum = field(default_factory=Checksum)  # of the rows as the stage before wrote them
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

    def __init__(self, output: OutputDirectory, *, retry: bool = False) -> None:
        """`retry`: rows that failed in a shard that stands are tried again."""
        self._output, self._options, self._retry = output, output.options, retry
        self._failures = lru_cache(4)(lambda number: read_failures(output.sidecar(number)))

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
            self._output.release()

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
        totals = Totals(extension=output.extension)
        first = output.first_shard * self._options.per_shard
        rows = rows_of(batches, reader, first=first, skip=self._stands)
        packed = self._packed(rows, totals, bad, expect, jobs)
        settle = self._retried if self._retry else self._verified
        for number, group in groupby(packed, key=lambda p: p.row.number // self._options.per_shard):
            if not totals.shards:
                output.begin()
            if skipped := number in output.standing:
                shard = settle(number, group)
                skipped = shard is output.standing[number]
            else:
                output.unfinish()  # an earlier, shorter run may have come to its end
                per_shard, rules = self._options.per_shard, self._options.recorded()
                shard = write_shard(output.path, number, per_shard, group, rules)
                output.record(shard)
            totals.add(shard, skipped=skipped)
            on_shard(shard, skipped)
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
                totals.came.add([row.came[0]], [row.came[1]])
                if self._stands(row.number):
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

    def _stands(self, row: int) -> bool:
        """Whether a row's image need not be read: its shard stands, and it is not to be tried again."""
        number, place = divmod(row, self._options.per_shard)
        if number not in self._output.standing:
            return False
        return not (self._retry and place in self._failures(number))

    def _outcome(self, row: Row) -> PackedRow:
        """What became of a row of a shard that stands already: its failure counts in this run too."""
        number, place = divmod(row.number, self._options.per_shard)
        return PackedRow(row, None, *self._failures(number).get(place, (SUCCESS, None)))

    def _verified(self, number: int, group: Iterator[PackedRow]) -> CommittedShard:
        for _ in self._compared(number, group):
            pass
        return self._output.standing[number]

    def _compared(self, number: int, group: Iterator[PackedRow]) -> Iterator[PackedRow]:
        """The rows of a shard that stands. Raises UsageError behind the last when they are not those it was
        made of.
        """
        source, recorded = Source(), self._output.standing[number]
        count = 0
        for packed in group:
            source.add(packed.row)
            count += 1
            yield packed
        if source.fingerprint != recorded.input:
            what = f"{recorded.rows} rows then, {count} now" if count != recorded.rows else "its rows changed"
            raise self._other_input(number, what)

    def _other_input(self, number: int, what: str) -> UsageError:
        return UsageError(
            f"{self._output.path}: --resume with other input: shard {shard_name(number)}: {what}",
            remedy="give the same input, or --force to start anew",
        )

    def _retried(self, number: int, group: Iterator[PackedRow]) -> CommittedShard:
        """The shard that stands, or where a failed row has come to something else, one in its place."""
        group, before = self._compared(number, group), []
        failed = self._failures(number)
        for packed in group:
            place = packed.row.number % self._options.per_shard
            if packed.image is None and (packed.status, packed.message) == failed.get(place, (SUCCESS, None)):
                before.append(packed)  # no image is held here
                continue
            tar = self._output.path / self._output.standing[number].tar.name
            with StoredImages(tar) as stored:
                rows = (self._stored(stored, number, p) for p in chain(before, (packed,), group))
                per_shard, rules = self._options.per_shard, self._options.recorded()
                shard = write_shard(self._output.path / RETRIED, number, per_shard, rows, rules)
                self._output.replace(shard)
            return shard
        return self._output.standing[number]

    def _stored(self, images: StoredImages, number: int, packed: PackedRow) -> PackedRow:
        """A row with the image that the shard has of it, where it was not packed anew."""
        if packed.image is not None or packed.status != SUCCESS:
            return packed
        per_shard = self._options.per_shard
        found = images.get(sample_key(number, packed.row.number % per_shard, per_shard))
        if found is None:
            raise self._other_input(number, "it has more rows now")
        image, image_id = found
        return replace(packed, row=replace(packed.row, image_id=image_id), image=image)


def _settled(row: Row, job: Future[PackedImage]) -> PackedRow:
    try:
        return PackedRow(row, job.result())
    except ValueError as error:
        return PackedRow(row, None, UNDECODABLE, " ".join(str(error).split()))


def count_rows(batches: Iterator[Batch]) -> int:
    """How many rows there are, for `--dry-run`."""
    return sum(len(batch) for batch in batches)

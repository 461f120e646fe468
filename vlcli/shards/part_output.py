"""The same directory, when the parts of a job array write into it at the same time.

out/00000.tar  …  _vlcli/run.json  _vlcli/part-00003.jsonl  _vlcli/part-00003.lock  _vlcli/parts.lock

`run.json` is what all parts agree on: the first of them counts the rows of every unit of the input and finds the one
image format, the others compare and take over. Each part has a contiguous range of the shards, a journal of them and a
lock. The part that finds the shards of all parts standing writes the manifest and sizes.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError
from vlcli.images.resolve import ImageReader
from vlcli.records.atomic import write_json
from vlcli.records.batch import Batch
from vlcli.records.lock import DirectoryLock
from vlcli.records.part import Part
from vlcli.records.parted import PartedInput
from vlcli.shards.layout import COMMITTED, PRIVATE, RUN, SIZES, is_leftover_of
from vlcli.shards.output import Options, OutputDirectory, is_untouched, read_journal, write_journal
from vlcli.shards.pack import pack_image
from vlcli.shards.reader import read_json
from vlcli.shards.rows import rows_of
from vlcli.shards.writer import CommittedShard

_FALLBACK = "jpg"  # where no image of the input is good, all parts still have to agree


class PartOutput(OutputDirectory):
    """One part's claim on a directory that it shares with the others. It touches only what is its own."""

    _otherwise = "name another directory"

    def __init__(
        self,
        path: Path,
        options: Options,
        part: Part,
        source: PartedInput,
        *,
        dry_run: bool = False,
        command_line: list[str] | None = None,
    ) -> None:
        """Counts `source`, or tells it what another part has counted. With `dry_run` nothing is written.

        Raises UsageError where another input, other options or another number of parts began, where something else
        stands there or another process writes this part; InputError for input that is damaged.
        """
        self.part, self.source, self._is_dry = part, source, dry_run
        self.missing = 0  # shards of all parts, when this one has come to its end
        own = path / PRIVATE / f"part-{part.number:05}"
        self._own_lock = DirectoryLock(own.with_suffix(".lock"), f"part {part} of {path}")
        super().__init__(path, options, command_line=command_line)
        self.journal = own.with_suffix(".jsonl")
        self._load_journal()

    @property
    def all_shards(self) -> range:
        return range(-(-self.source.rows // self.options.per_shard))

    @property
    def shards(self) -> range:
        """Those of this part."""
        mine = self.part.of(self.all_shards)
        assert isinstance(mine, range)
        return mine

    @property
    def rows(self) -> range:
        """Those of this part, by their numbers in the whole input."""
        per_shard, total = self.options.per_shard, self.source.rows
        return range(min(self.shards.start * per_shard, total), min(self.shards.stop * per_shard, total))

    @property
    def first_shard(self) -> int:  # type: ignore[override]
        return self.shards.start

    @property
    def extension(self) -> str | None:
        return self._run.get("extension")

    def release(self) -> None:
        self._own_lock.release()
        super().release()

    def begin(self) -> None:
        """Remove what a killed run of this part left, and open its journal."""
        leftovers = [p for p in self.path.iterdir() if is_leftover_of(p.name, self.shards)]
        for path in [*leftovers, *(self.path / PRIVATE).glob(f".{self.journal.name}.*.tmp")]:
            path.unlink(missing_ok=True)
        write_journal(self.journal, self.standing.values())

    def finish(self, shards: Iterable[CommittedShard]) -> None:
        """The shards of this part stand. If those of all parts do, the directory is declared whole."""
        if not self.all_shards:
            return
        with self._agreeing() as alone:
            found: dict[int, CommittedShard] = {}
            for number in range(self.part.count):
                found |= read_journal(self.journal.with_name(f"part-{number:05}.jsonl"))
            standing = [found[n] for n in self.all_shards if n in found and found[n].stands_in(self.path)]
            self.missing = len(self.all_shards) - len(standing)
            if self.missing:
                return
            if alone:  # what a part that was killed in this very place left
                for name in (f".{Path(SIZES).name}.*.tmp", f"{PRIVATE}/.*.tmp"):
                    for path in self.path.glob(name):
                        path.unlink(missing_ok=True)
            write_journal(self.path / COMMITTED, standing)  # from here on as if one run had written it
            super().finish(standing)

    def _claim(self) -> None:
        if self._is_dry:
            self._agree()
            return
        self._refuse_others()
        (self.path / PRIVATE).mkdir(parents=True, exist_ok=True)
        self.lock.acquire(shared=True)  # with the other parts, and with no run over the whole
        self._own_lock.acquire()
        with self._agreeing():
            self._agree()

    @contextmanager
    def _agreeing(self) -> Iterator[bool]:
        """One part after the other; whether that is certain, since a file system may have no locks."""
        lock = DirectoryLock(self.path / PRIVATE / "parts.lock", str(self.path))
        lock.acquire(wait=True)
        try:
            yield lock.held
        finally:
            lock.release()

    def _agree(self) -> None:
        self._refuse_others()
        run = self.path / RUN
        if not run.exists():
            self._plan()
            if self._is_dry or not self.source.rows:
                return
            with suppress(UsageError):  # without locks, another may have been faster: it is compared
                write_json(run, self._run, force=False)
        said = read_json(run)
        self._compare(said)
        self.source.restore(said["units"])
        self._run = said

    def _refuse_others(self) -> None:
        if self.path.is_dir() and not is_untouched(self.path) and not (self.path / RUN).exists():
            raise UsageError(f"{self.path}: not empty", remedy="parts go to a directory of their own")

    def _plan(self) -> None:
        self.source.count()
        self._run |= {"parts": self.part.count, "input": self.source.known_by()}
        self._run |= {"units": self.source.recorded(), "extension": self.options.encode}
        if self.options.encode == "keep" and not self._is_dry:
            with ImageReader() as reader:
                batches = self.source.batches(range(self.source.rows))
                self._run["extension"] = _first_extension(batches, reader, self.options.resize) or _FALLBACK

    def _compare(self, said: dict[str, Any]) -> None:
        count = said.get("parts")
        if count is None:
            raise UsageError(
                f"{self.path}: a run without --part wrote it",
                remedy="go on without, or name another directory",
            )
        if count != self.part.count:
            raise UsageError(
                f"{self.path}: it was begun in {count} parts, and this is {self.part}",
                remedy=f"give --part i/{count}, or name another directory",
            )
        super()._compare(said)
        now = self.source.known_by()
        for name, before in said["input"].items():
            if before != now[name]:
                flag = {"files": "input files", "format": "--from", "map": "--map"}[name]
                raise UsageError(
                    f"{self.path}: it was begun with other {flag}",
                    remedy="give the same to all parts, or name another directory",
                )


def _first_extension(batches: Iterator[Batch], reader: ImageReader, resize: int | None) -> str | None:
    """That of the first good image, as a run over everything finds it; None when there is none."""
    for row in rows_of(batches, reader):
        if row.data is not None and row.texts:
            try:
                return pack_image(row.data, None, resize).extension
            except ValueError:
                continue
    return None

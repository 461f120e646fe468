"""The directory that shards go into: claimed, journalled, and declared whole at the end."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vlcli import __version__
from vlcli.errors import UsageError
from vlcli.records.atomic import atomic_file, check_folder, sync_folder, write_json
from vlcli.records.lock import DirectoryLock
from vlcli.shards.layout import (
    COMMITTED,
    IMAGE_EXTENSIONS,
    LAYOUT_VERSION,
    LOCK,
    MANIFEST,
    PART_JOURNALS,
    PER_SHARD,
    PRIVATE,
    RETRIED,
    RUN,
    SIZES,
    find_tars,
    is_leftover,
    is_shard_file,
    shard_name,
    sidecar_of,
    stats_of,
)
from vlcli.shards.reader import read_json
from vlcli.shards.writer import CommittedShard


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


def is_untouched(path: Path) -> bool:
    """Empty, or left by a run that was killed before it had written anything."""
    names = [p.name for p in path.iterdir()]
    return not names or (names == [PRIVATE] and not any((path / n).exists() for n in (RUN, COMMITTED)))


class OutputDirectory:
    """A claim on a directory. Nothing in it is touched before `begin`, which locks it; `lock.release()` ends that.

    What a stopped run left is continued, unless `force` removes it. What is whole is refused, unless `resume`
    (it is compared with the input, and what is missing is made again) or `force` was given. Raises UsageError
    for that, and when what is to be continued was written with other options or by another version.
    """

    first_shard = 0
    _otherwise = "--force to start anew"

    def __init__(
        self,
        path: Path,
        options: Options,
        *,
        force: bool = False,
        resume: bool = False,
        command_line: list[str] | None = None,
    ) -> None:
        self.path, self.options = path, options
        self.journal = path / COMMITTED
        self.lock = DirectoryLock(path / LOCK, str(path))
        self._asked = force, resume
        self.recorded: dict[int, CommittedShard] = {}  # what the journal of an earlier run says
        self.standing: dict[int, CommittedShard] = {}  # and of that, what is really there
        self.replaced: list[str] = []  # files that `force` removes
        self._ready: dict[int, CommittedShard] = {}  # made again, and not yet all in their places
        self._run: dict[str, Any] = {
            "version": __version__,
            "options": options.recorded(),
            "command": command_line or [],
            "started": time.time(),
            "finished": None,
        }
        check_folder(path)
        try:
            self._claim()
        except BaseException:
            self.release()
            raise

    def _claim(self) -> None:
        if (self.path / LOCK).exists():
            self.lock.acquire()  # told before a row is read, where there is a lock already
        self._look()

    @property
    def extension(self) -> str | None:
        """Of all images of the data set, where it is known before the first of them."""
        if self.options.encode != "keep":
            return self.options.encode
        return min((s.extension for s in self.recorded.values() if s.extension is not None), default=None)

    def release(self) -> None:
        """Let another run in."""
        self.lock.release()

    def _look(self) -> None:
        """What stands in the directory, and whether that may be continued or replaced."""
        force, resume = self._asked
        path = self.path
        if path.is_dir() and not is_untouched(path):
            unfinished = (path / RUN).exists() and not (path / SIZES).exists()
            if resume or (unfinished and not force):
                self._load()
            elif force:
                self.replaced = sorted(
                    p.name for p in path.iterdir() if is_shard_file(p.name) and p.is_file()
                )
            else:
                raise UsageError(
                    f"{path}: not empty",
                    remedy="--force replaces it, --resume compares it with the input and repairs it",
                )

    def _load(self) -> None:
        run = self.path / RUN
        if not run.exists():
            raise UsageError(
                f"{self.path}: nothing to resume ({RUN} is missing)", remedy="--force starts anew"
            )
        said = read_json(run)
        self._compare(said)
        if said.get("parts") and not (self.path / SIZES).exists():
            raise UsageError(
                f"{self.path}: it is being written in {said['parts']} parts, and some are not whole",
                remedy=f"finish them with --part i/{said['parts']}, or --force to start anew",
            )
        self._load_journal()
        for mark in (self.path / RETRIED).glob("*.ready"):
            shard = CommittedShard.from_json(mark.read_bytes())
            self._ready[shard.shard] = self.recorded[shard.shard] = self.standing[shard.shard] = shard

    def _compare(self, said: dict[str, Any]) -> None:
        """Raises UsageError when this run is another than the one that began."""
        if said.get("version") != __version__:  # sidecars name it, and another one may write other bytes
            raise UsageError(
                f"{self.path}: vlcli {said.get('version')} began it, and this is {__version__}",
                remedy=f"finish it with the same, or {self._otherwise}",
            )
        before = said.get("options", {})
        for name, now in self.options.recorded().items():
            if before.get(name) != now:
                raise UsageError(
                    f"{self.path}: --resume with another --{name}: {before.get(name)} then, {now} now",
                    remedy=f"give the same, or {self._otherwise}",
                )

    def _load_journal(self) -> None:
        self.recorded = read_journal(self.journal)
        self.standing = {n: s for n, s in self.recorded.items() if s.stands_in(self.path)}

    def begin(self) -> None:
        """The first row has come: remove what is to be replaced and open the journal.

        Raises UsageError when another run writes into the directory, or has since this one looked at it.
        """
        (self.path / PRIVATE).mkdir(parents=True, exist_ok=True)
        if not self.lock.held:
            self.lock.acquire()
            seen = self.recorded, self.standing, self.replaced
            self.recorded, self.standing, self.replaced, self._ready = {}, {}, [], {}
            self._look()
            if (self.recorded, self.standing, self.replaced) != seen:
                raise UsageError(
                    f"{self.path}: another run has written into it meanwhile", remedy="start this one again"
                )
        if self.replaced:
            self.unfinish()  # first of all: from here on nothing in the directory claims to be whole
            for name in (RUN, COMMITTED):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / RETRIED, ignore_errors=True)
        leftovers = [p.name for p in self.path.iterdir() if is_leftover(p.name)]
        leftovers += [f"{PRIVATE}/{p.name}" for p in (self.path / PRIVATE).glob(".*.tmp")]
        for name in {*self.replaced, *leftovers}:
            (self.path / name).unlink(missing_ok=True)
        for journal in (self.path / PRIVATE).glob(PART_JOURNALS):
            journal.unlink()  # COMMITTED has what parts have written
        write_journal(self.journal, self.standing.values())  # without a line that a killed run tore
        for shard in self._ready.values():
            self._put_in_place(shard)
        self._ready.clear()
        shutil.rmtree(self.path / RETRIED, ignore_errors=True)
        write_json(self.path / RUN, self._run, force=True)  # with it the directory can be continued

    def unfinish(self) -> None:
        """Take back what says that the directory is whole, before a shard is added or replaced."""
        for name in (SIZES, MANIFEST):
            (self.path / name).unlink(missing_ok=True)

    def record(self, shard: CommittedShard) -> None:
        """One more shard stands."""
        with open(self.journal, "ab") as journal:
            journal.write(shard.to_json())
            journal.flush()
            os.fsync(journal.fileno())

    def sidecar(self, number: int) -> Path:
        """That of a shard that stands, or of the one that will stand in its place when the run has begun."""
        name = self.standing[number].sidecar.name
        waiting = self.path / RETRIED / name
        return waiting if number in self._ready and waiting.exists() else self.path / name

    def replace(self, shard: CommittedShard) -> None:
        """Let a shard that was written whole into RETRIED take the place of the one that stands.

        Three files cannot be renamed at once. So from the mark on the new shard counts, and whoever finds the
        mark after a kill renames what is left to be renamed.
        """
        self.unfinish()
        with atomic_file(self._mark(shard), force=True) as file:
            file.write(shard.to_json())
        self.record(shard)
        self._put_in_place(shard)

    def _mark(self, shard: CommittedShard) -> Path:
        return self.path / RETRIED / f"{shard.shard}.ready"

    def _put_in_place(self, shard: CommittedShard) -> None:
        tar = self.path / RETRIED / shard.tar.name
        for file in (tar, sidecar_of(tar), stats_of(tar)):
            if file.exists():
                os.replace(file, self.path / file.name)
        sync_folder(self.path)
        self._mark(shard).unlink()

    def finish(self, shards: Iterable[CommittedShard]) -> None:
        """All shards stand: write the manifest and, as the last file, sizes.json.

        Raises UsageError where the directory has more of them.
        """
        shards = list(shards)
        self._refuse_surplus(len(shards))
        if (
            not shards
        ):  # no rows, no data set: an upstream that failed before its first row leaves nothing here
            return
        shutil.rmtree(self.path / RETRIED, ignore_errors=True)
        with atomic_file(self.path / MANIFEST, force=True) as file:
            for shard in shards:
                for part in (shard.tar, shard.sidecar):
                    line = {
                        "name": part.name,
                        "bytes": part.bytes,
                        "samples": shard.samples,
                        "sha256": part.sha256,
                    }
                    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        rows, samples = sum(s.rows for s in shards), sum(s.samples for s in shards)
        write_json(
            self.path / RUN,
            self._run | {"finished": time.time(), "rows": rows, "samples": samples},
            force=True,
        )
        write_json(self.path / SIZES, {shard.tar.name: shard.samples for shard in shards}, force=True)

    def _refuse_surplus(self, count: int) -> None:
        stems = (tar.stem for tar in find_tars(self.path)) if count else ()
        there = {int(stem) for stem in stems if stem.isdecimal()} | self.recorded.keys()
        if surplus := [n for n in there if n >= count]:
            raise UsageError(
                f"{self.path}: --resume with other input: {count} shards of it, "
                f"but shard {shard_name(min(surplus))} stands there too",
                remedy="--force starts anew",
            )


def read_journal(path: Path) -> dict[int, CommittedShard]:
    """What a journal says of each shard, the last time it does; nothing where there is none."""
    recorded = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            shard = CommittedShard.from_json(line)
        except (ValueError, TypeError, KeyError):
            continue  # the line that a killed run did not finish: its shard is written again
        recorded[shard.shard] = shard
    return recorded


def write_journal(path: Path, shards: Iterable[CommittedShard]) -> None:
    with atomic_file(path, force=True) as journal:
        for shard in shards:
            journal.write(shard.to_json())

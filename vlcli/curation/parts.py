"""`filter` into a directory: a file for each unit of the plan, by one process or by a job array of many.

    kept/00000.jsonl  00001.jsonl  …  _vlcli/run.json  _vlcli/units/00000.json  …

A unit's file holds what is kept of it, the same bytes whichever part writes it. The unit is committed when its counts
stand in `_vlcli/units`; a run that goes on skips it. Rules that count over the whole corpus take their counts from a
directory that `count_part` has written for every part.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from vlcli import __version__
from vlcli.curation.behind import NOTHING, Behind
from vlcli.curation.fields import Fields
from vlcli.curation.filter import Found, Progress, Source, Target, divert, made_by, survey
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.numbering import Numbering
from vlcli.curation.piecework import Job, Outcome
from vlcli.curation.plan import Plan
from vlcli.curation.selecting import Selecting
from vlcli.curation.team import Team
from vlcli.curation.translating import Translating
from vlcli.errors import Incomplete, UsageError
from vlcli.records.atomic import sync_folder, write_json
from vlcli.records.bad import BadRows
from vlcli.records.pieces import Piece, Reading, pieces
from vlcli.records.references import Relocator
from vlcli.records.rejects import RejectsWriter
from vlcli.records.sources import FORMATS, sources
from vlcli.records.units import Unit, plan_units, shown

PRIVATE = "_vlcli"  # what is not promised byte for byte
_COUNT_FIRST = "first `--count-only -o COUNTS/ --part i/n` for every part, then `--counts COUNTS/`"
_EDGE = 1 << 16  # bytes at both ends of an input by which it is known again


@dataclass(frozen=True)
class Part:
    """One of `count` parts of the plan: consecutive units."""

    number: int = 0
    count: int = 1

    def of(self, units: Sequence[Unit]) -> Sequence[Unit]:
        return units[self.number * len(units) // self.count : (self.number + 1) * len(units) // self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_part(value: str) -> Part:
    """`3/8`, the parts being 0/8 to 7/8."""
    number, slash, count = value.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and int(number) < int(count):
        return Part(int(number), int(count))
    raise UsageError(
        f"--part {value!r} is not i/n with 0 <= i < n",
        remedy="for a job array from 0 to 7: --part $SLURM_ARRAY_TASK_ID/8",
    )


def is_directory(output: str | None) -> bool:
    """Whether `-o` names a directory of units: it ends in a slash, or such a directory stands there."""
    return output is not None and (
        output.endswith("/") or os.path.isfile(os.path.join(output, PRIVATE, "run.json"))
    )


def count_part(
    plan: Plan,
    source: Source,
    folder: Path,
    part: Part,
    *,
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Progress = lambda _, __: None,
) -> str:
    """Counts what rules want to know of the whole corpus in one part of it, into `folder`; returns what it has done.

    Texts are counted after the per-query cap, and a part's ranks in each query start where the parts before it end:
    where a plan has both, the queries are counted in a first call and the rest in a second, when all parts have been
    there. Raises UsageError where other input, rules or another number of parts have been counted there, Incomplete
    where the second call comes before the first of all others.
    """
    _refuse_head(source)
    units = plan_units(sources(source.inputs), source.format)
    _claim(folder, _description(plan, source, units, parts=part.count))
    if (folder / _part_name(part.number)).is_dir():
        return "was counted already"
    lock = folder / PRIVATE / f"{_part_name(part.number)}.lock"
    with _locked(lock, f"part {part} of {folder}"), ExitStack() as stack:
        job = Job(plan, dict(source.renames), counts_ids=True)
        team = stack.enter_context(Team(job, jobs))
        numbering = stack.enter_context(Numbering())
        mine = part.of(units)
        in_two = part.count > 1 and team.counts_first and plan.bound("max-per-query") is not None
        if in_two and not (folder / _rows_name(part.number)).is_dir():
            for outcome in team.run(
                "judge", _of_units(source, mine, standing=set(range(len(units)))), numbering
            ):
                on_progress("numbering", outcome.read)
            with _appearing(folder, _rows_name(part.number)) as made:
                numbering.save(made)
            return "has its queries counted; the same command again, when all parts have, counts the rest"
        if in_two:
            numbering.seed(*_rows_before(folder, part))
        rows = _of_units(source, mine)
        survey(plan, source, rows, team, numbering, max_bad, on_progress, part_of_many=part.count > 1)
        team.gather()
        if not in_two:
            with _appearing(folder, _rows_name(part.number)) as made:
                numbering.save(made)
        with _appearing(folder, _part_name(part.number)) as made:
            team.worker.save_to(made)
    return "is counted"


def is_counted(folder: Path, count: int) -> bool:
    """Whether all parts have counted all there is to count."""
    return all((folder / _part_name(number)).is_dir() for number in range(count))


def filter_part(
    plan: Plan,
    source: Source,
    target: Target,
    part: Part,
    counts: Path | None = None,
    *,
    behind: Behind = NOTHING,
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Progress = lambda _, __: None,
) -> dict[str, Any]:
    """Filters the units of one part that do not stand yet into the directory `target.output`; returns the report.

    The report is of all units of this part, those that stood already too. `_vlcli/report.json` is that of the whole,
    written when the last unit stands. Raises UsageError where another run stands there, Incomplete where `counts`
    lacks parts.
    """
    _refuse_head(source)
    assert target.output is not None
    if target.held_out is not None or not Selecting(behind.selections, Fields()).is_by_row:
        raise UsageError(
            "what is chosen among all rows is no matter of a part",
            remedy=f"choose from the files of all parts: vlcli filter {target.output}",
        )
    folder, units = Path(target.output), plan_units(sources(source.inputs), source.format)
    kind = target.format or "jsonl"
    _claim(
        folder,
        _description(plan, source, units, format=kind, behind=behind.fingerprint()),
        force=target.force,
    )
    mine = part.of(units)
    with ExitStack() as stack:
        stack.enter_context(
            _locked(folder / PRIVATE / f"{_part_name(part.number)}.lock", f"part {part} of {folder}")
        )
        sizes = stack.enter_context(HeaderSizes())
        rejects = Relocator(target.rejects) if target.rejects is not None else None
        start = Relocator(source.image_root or folder) if kind == "jsonl" else None
        job = replace(behind.job(plan, source.renames, start, rejects), counts_ids=part.count > 1)
        team = stack.enter_context(Team(job, jobs))
        numbering = stack.enter_context(Numbering())
        standing = {unit.number for unit in mine if _mark(folder, unit.number).exists()}
        wanted = [unit for unit in mine if unit.number not in standing]
        if wanted and counts is not None:
            _know(plan, source, units, team, numbering, counts, part)
        elif wanted:
            if part.count > 1 and team.counts_first:
                raise UsageError("a part alone cannot count over the whole corpus", remedy=_COUNT_FIRST)
            if team.counts_first:
                with Numbering() as first:
                    survey(plan, source, _of_units(source, units), team, first, max_bad, on_progress)
                team.gather()
            team.finish()
        # Rows of units that stand are numbered anew, but for those behind the last unit that is missing.
        read = [unit for unit in mine if wanted and unit.number <= wanted[-1].number]
        translating = None
        if wanted and behind.translation is not None:
            translating = stack.enter_context(Translating(behind.translation))
        writer = _UnitWriter(folder, kind, target, source, sizes, made_by(plan, behind))
        queue: deque[Unit] = deque()
        bad, orphans = BadRows(max_bad), part.count > 1 and counts is None
        tagged = _of_units(source, read, image_bytes=target.embed_images, standing=standing, queue=queue)
        with writer:
            for outcome in team.run("judge", tagged, numbering):
                unit = queue.popleft()
                if orphans and outcome.unnamed:
                    raise UsageError(
                        "rows have no id, and a part alone cannot know which rows of others are equal to them",
                        remedy=_COUNT_FIRST,
                    )
                on_progress("filtering", outcome.read)
                if unit.number in standing:
                    continue
                writer.add(
                    unit, lambda: Found(plan, team.worker, behind, translating), outcome, bad, on_progress
                )
            for unit in wanted:  # those without a single row
                writer.move_to(unit, lambda: Found(plan, team.worker, behind))
        bad.judge()
        if translating is not None:
            translating.finish()
        found = Found(plan, team.worker, behind, translating)
        for unit in mine:
            found.load(orjson.loads(_mark(folder, unit.number).read_bytes()))
        report = found.report(list(source.inputs), None)
        report["part"] = {
            "number": part.number,
            "count": part.count,
            "units": len(mine),
            "stood": len(standing),
        }
        if all(_mark(folder, unit.number).exists() for unit in units):
            whole = Found(plan, team.worker, behind)
            for unit in units:
                whole.load(orjson.loads(_mark(folder, unit.number).read_bytes()))
            whole.check(source)
            write_json(folder / PRIVATE / "report.json", whole.report(list(source.inputs), None), force=True)
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report


class _UnitWriter:
    """One unit's file after the other; a context manager, in which the unit at hand leaves nothing when it fails."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        target: Target,
        source: Source,
        sizes: HeaderSizes,
        step: dict[str, Any],
    ) -> None:
        self._folder, self._kind, self._target, self._source = folder, kind, target, source
        self._sizes, self._step = sizes, step
        self._unit: Unit | None = None
        self._found: Found | None = None
        self._open = ExitStack()
        self._writer: Any = None
        self._rejects: Any = None

    def add(
        self, unit: Unit, make: Callable[[], Found], outcome: Outcome, bad: BadRows, on_progress: Progress
    ) -> None:
        self.move_to(unit, make)
        assert self._found is not None
        bad.rejects = self._rejects
        divert(outcome, bad, self._rejects)
        self._found.write(outcome, self._writer, self._rejects, None, on_progress)

    def move_to(self, unit: Unit, make: Callable[[], Found]) -> None:
        """Commit the unit at hand if it is another, and begin this one unless it stands."""
        if self._unit == unit:
            return
        self.commit()
        if _mark(self._folder, unit.number).exists():
            return
        name = f"{unit.number:05}.{self._kind}"
        target = replace(self._target, output=str(self._folder / name), format=self._kind, force=True)
        self._open = ExitStack()
        rejects = (
            self._target.rejects / f"{unit.number:05}.jsonl" if self._target.rejects is not None else None
        )
        self._rejects = self._open.enter_context(RejectsWriter(rejects, force=True))
        self._writer = self._open.enter_context(
            target.open(self._source.image_root, self._sizes.read, self._step)
        )
        self._unit, self._found = unit, self._open.enter_context(make())

    def commit(self) -> None:
        if self._unit is not None:
            assert self._found is not None
            self._found.finish()
            saved = self._found.saved()
            self._open.close()
            write_json(_mark(self._folder, self._unit.number), saved, force=True)
            self._unit = self._found = None

    def __enter__(self) -> _UnitWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.commit()
        else:
            self._open.__exit__(kind, error, trace)


def _of_units(
    source: Source,
    units: Sequence[Unit],
    *,
    image_bytes: bool = False,
    standing: set[int] = frozenset(),  # type: ignore[assignment]
    queue: deque[Unit] | None = None,
) -> Iterator[Piece]:
    """The pieces of these units; `queue` is told the unit of each."""
    found = sources(source.inputs)
    reading = Reading(source.format, source.renames, image_bytes, source.image_root)
    for unit in units:
        for piece in pieces(found, reading, [unit]):
            if queue is not None:
                queue.append(unit)
            yield replace(piece, is_wanted=unit.number not in standing)


def _know(
    plan: Plan,
    source: Source,
    units: Sequence[Unit],
    team: Team,
    numbering: Numbering,
    counts: Path,
    part: Part,
) -> None:
    """Take over what all parts have counted; the first part that does merges it for all."""
    run = counts / PRIVATE / "run.json"
    if not run.exists():
        raise UsageError(f"--counts {counts}: no counts stand there", remedy="make them with --count-only")
    _compare(run, _description(plan, source, units, parts=part.count), f"--counts {counts}")
    _require(counts, part.count, _part_name, "--counts ")
    folders = [counts / _part_name(n) for n in range(part.count)]
    numbering.seed(*_rows_before(counts, part))
    merged = counts / "merged"
    if not merged.is_dir():
        team.worker.merge(folders)
        team.worker.finish()
        with _appearing(counts, merged.name) as made:
            team.worker.freeze(made)
    team.worker.thaw(merged)
    team.know()


def _description(plan: Plan, source: Source, units: Sequence[Unit], **more: Any) -> dict[str, Any]:
    """What has to be the same for all who write to one directory."""
    return {
        "version": __version__,
        "rules": plan.fingerprint(),
        "map": dict(source.renames),
        "image_root": str(source.image_root) if source.image_root is not None else None,
        **more,
        "inputs": [_fingerprint(s.path) for s in sources(source.inputs) if s.path is not None],
        "units": [{**unit, "path": os.path.basename(unit["path"])} for unit in shown(units)],
    }


def _fingerprint(path: str) -> dict[str, Any]:
    """Name, size, and a digest of the beginning and the end, where Parquet keeps its statistics."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        edges = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        edges += file.read(_EDGE)
    return {"name": os.path.basename(path), "bytes": size, "edges": hashlib.sha256(edges).hexdigest()}


def _claim(folder: Path, description: dict[str, Any], *, force: bool = False) -> None:
    """Make the directory this run's, or go on in one that is. Raises UsageError for one that is another's."""
    run = folder / PRIVATE / "run.json"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="parts go to a directory")
    if force and run.exists():
        for path in [*folder.glob("[0-9]*.*"), *folder.glob(f"{PRIVATE}/units/*.json"), run]:
            if path.suffix.removeprefix(".") in (*FORMATS, "json"):
                path.unlink()
    if not run.exists():
        if folder.is_dir() and any(path.name != PRIVATE for path in folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty, and no run of filter stands there", remedy="name another"
            )
        (folder / PRIVATE / "units").mkdir(parents=True, exist_ok=True)
        with suppress(UsageError):  # another part was faster; it is compared with what that says
            write_json(run, description, force=False)
    _compare(run, description, str(folder))


def _compare(run: Path, description: dict[str, Any], what: str) -> None:
    stands = orjson.loads(run.read_bytes())
    now = orjson.loads(orjson.dumps(description))
    for key in description:
        if stands.get(key) != now[key]:
            shown_as = (
                f": {stands.get(key)} then, {now[key]} now" if key in ("parts", "format", "version") else ""
            )
            raise UsageError(
                f"{what}: it was made with other {key}{shown_as}",
                remedy="give the same input, rules and parts, or name another directory",
            )


def _refuse_head(source: Source) -> None:
    if source.head is not None:
        raise UsageError("--head stops after rows of the whole input, and parts each read their own")


def _part_name(number: int) -> str:
    return f"part-{number:05}"


def _rows_name(number: int) -> str:
    return f"rows-{number:05}"


def _mark(folder: Path, unit: int) -> Path:
    return folder / PRIVATE / "units" / f"{unit:05}.json"


def _rows_before(folder: Path, part: Part) -> tuple[Path, list[Path]]:
    """What this part has numbered, and what those before it have."""
    _require(folder, part.count, _rows_name, "")
    return folder / _rows_name(part.number), [folder / _rows_name(n) for n in range(part.number)]


def _require(folder: Path, count: int, name: Callable[[int], str], option: str) -> None:
    missing = [str(n) for n in range(count) if not (folder / name(n)).is_dir()]
    if missing:
        raise Incomplete(
            f"{option}{folder}: {len(missing)} of {count} parts are not counted yet, the first is {missing[0]}",
            remedy=f"run --count-only with --part {missing[0]}/{count}",
        )


@contextmanager
def _appearing(parent: Path, name: str) -> Iterator[Path]:
    """A directory that takes its name when the block ends well; another that was faster, with the same, stays."""
    folder = parent / f".{name}.{secrets.token_hex(8)}.tmp"
    folder.mkdir()
    try:
        yield folder
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        with suppress(OSError):
            os.replace(folder, parent / name)
        if not (parent / name).is_dir():
            raise RuntimeError(f"{parent / name}: the directory could not be named")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(parent)


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """Raises UsageError where another process works on the same part; a lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{what}: another process is at work on it") from None
        yield

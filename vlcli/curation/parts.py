"""`filter` into a directory: a file for each unit of the plan, by one process or by a job array of many.

    kept/00000.jsonl  00001.jsonl  …  _vlcli/run.json  _vlcli/units/00000.json  …

A unit's file holds what is kept of it, the same bytes whichever part writes it. The unit is committed when its counts
stand in `_vlcli/units`; a run that goes on skips it. Rules that count over the whole corpus take their counts from a
directory that `count_part` has written for every part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from vlcli.curation.behind import NOTHING, Behind
from vlcli.curation.ends import Source, Target
from vlcli.curation.fields import Fields
from vlcli.curation.filter import survey
from vlcli.curation.found import Found, Progress, made_by
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.numbering import Numbering
from vlcli.curation.part_directory import (
    PRIVATE,
    appearing,
    claim,
    compare,
    description,
    locked,
    mark,
    part_name,
    remove_leftovers,
    require,
    rows_before,
    rows_name,
)
from vlcli.curation.piecework import Job
from vlcli.curation.plan import Plan
from vlcli.curation.selecting import Selecting
from vlcli.curation.team import Team
from vlcli.curation.translating import Translating
from vlcli.curation.unit_writer import UnitWriter
from vlcli.errors import UsageError
from vlcli.records.atomic import write_json
from vlcli.records.bad import BadRows
from vlcli.records.part import Part
from vlcli.records.pieces import Piece, Reading, pieces
from vlcli.records.references import Relocator
from vlcli.records.sources import sources
from vlcli.records.units import Unit, plan_units

_COUNT_FIRST = "first `--count-only -o COUNTS/ --part i/n` for every part, then `--counts COUNTS/`"


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
    claim(folder, description(plan, source, units, parts=part.count))
    if (folder / part_name(part.number)).is_dir():
        return "was counted already"
    lock = folder / PRIVATE / f"{part_name(part.number)}.lock"
    with locked(lock, f"part {part} of {folder}"), ExitStack() as stack:
        job = Job(plan, dict(source.renames), counts_ids=True)
        team = stack.enter_context(Team(job, jobs))
        numbering = stack.enter_context(Numbering())
        mine = part.of(units)
        in_two = part.count > 1 and team.counts_first and plan.bound("max-per-query") is not None
        if in_two and not (folder / rows_name(part.number)).is_dir():
            for outcome in team.run(
                "judge", _of_units(source, mine, standing=set(range(len(units)))), numbering
            ):
                on_progress("numbering", outcome.read)
            with appearing(folder, rows_name(part.number)) as made:
                numbering.save(made)
            return "has its queries counted; the same command again, when all parts have, counts the rest"
        if in_two:
            numbering.seed(*rows_before(folder, part))
        rows = _of_units(source, mine)
        survey(plan, source, rows, team, numbering, max_bad, on_progress, part_of_many=part.count > 1)
        team.gather()
        if not in_two:
            with appearing(folder, rows_name(part.number)) as made:
                numbering.save(made)
        with appearing(folder, part_name(part.number)) as made:
            team.worker.save_to(made)
    return "is counted"


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
    claim(
        folder,
        description(plan, source, units, format=kind, behind=behind.fingerprint()),
        force=target.force,
    )
    mine = part.of(units)
    with ExitStack() as stack:
        stack.enter_context(
            locked(folder / PRIVATE / f"{part_name(part.number)}.lock", f"part {part} of {folder}")
        )
        for place in (folder, target.rejects):
            remove_leftovers(place, [unit.number for unit in mine])
        sizes = stack.enter_context(HeaderSizes())
        rejects = Relocator(target.rejects) if target.rejects is not None else None
        start = Relocator(source.image_root or folder) if kind == "jsonl" else None
        job = replace(behind.job(plan, source.renames, start, rejects), counts_ids=part.count > 1)
        team = stack.enter_context(Team(job, jobs))
        numbering = stack.enter_context(Numbering())
        standing = {unit.number for unit in mine if mark(folder, unit.number).exists()}
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
        writer = UnitWriter(folder, kind, target, source, sizes, made_by(plan, behind))
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
            found.load(orjson.loads(mark(folder, unit.number).read_bytes()))
        report = found.report(list(source.inputs), None)
        report["part"] = {
            "number": part.number,
            "count": part.count,
            "units": len(mine),
            "stood": len(standing),
        }
        if all(mark(folder, unit.number).exists() for unit in units):
            whole = Found(plan, team.worker, behind)
            for unit in units:
                whole.load(orjson.loads(mark(folder, unit.number).read_bytes()))
            whole.check(source)
            write_json(folder / PRIVATE / "report.json", whole.report(list(source.inputs), None), force=True)
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report


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
    compare(run, description(plan, source, units, parts=part.count), f"--counts {counts}")
    require(counts, part.count, part_name, "--counts ")
    folders = [counts / part_name(n) for n in range(part.count)]
    numbering.seed(*rows_before(counts, part))
    merged = counts / "merged"
    if not merged.is_dir():
        team.worker.merge(folders)
        team.worker.finish()
        with appearing(counts, merged.name) as made:
            team.worker.freeze(made)
    team.worker.thaw(merged)
    team.know()


def _refuse_head(source: Source) -> None:
    if source.head is not None:
        raise UsageError("--head stops after rows of the whole input, and parts each read their own")

"""`filter` into a directory: a file for each unit of the plan, by one process or by a job array of many.

    kept/00000.jsonl  00001.jsonl  …  _vlcli/run.json  _vlcli/units/00000.json  …

A unit's file holds what is kept of it, the same bytes whichever part writes it. The unit is committed when its counts
stand in `_vlcli/units`; a run that goes on skips it. Rules that count over the whole corpus take their counts from a
directory that `count_part` has written for every part.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    part_name,
    require,
    rows_before,
    rows_name,
)
from vlcli.curation.piecework import Job
from vlcli.curation.plan import Plan
from vlcli.curation.selecting import Selecting
from vlcli.curation.team import Team
from vlcli.curation.translating import Translating
from vlcli.curation.unit_run import begin, pieces_of, units_of
from vlcli.errors import UsageError
from vlcli.records.atomic import write_json
from vlcli.records.bad import BadRows
from vlcli.records.part import Part
from vlcli.records.units import Unit

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
    units = units_of(source)
    claim(folder, _described(plan, source, units, parts=part.count))
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
                "judge", pieces_of(source, mine, standing=frozenset(range(len(units)))), numbering
            ):
                on_progress("numbering", outcome.read)
            with appearing(folder, rows_name(part.number)) as made:
                numbering.save(made)
            return "has its queries counted; the same command again, when all parts have, counts the rest"
        if in_two:
            numbering.seed(*rows_before(folder, part))
        rows = pieces_of(source, mine)
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
    assert target.output is not None
    if target.held_out is not None or not Selecting(behind.selections, Fields()).is_by_row:
        raise UsageError(
            "what is chosen among all rows is no matter of a part",
            remedy=f"choose from the files of all parts: vlcli filter {target.output}",
        )
    units = units_of(source)
    described = _described(plan, source, units, format=target.format or "jsonl", behind=behind.fingerprint())
    with ExitStack() as stack:
        run = stack.enter_context(begin(source, target, part, units, described))
        lines, rejects = run.relocators()
        job = replace(behind.job(plan, source.renames, lines, rejects), counts_ids=part.count > 1)
        team = stack.enter_context(Team(job, jobs))
        numbering = stack.enter_context(Numbering())
        if run.wanted and counts is not None:
            _know(plan, source, units, team, numbering, counts, part)
        elif run.wanted:
            if part.count > 1 and (team.counts_first or plan.bound("max-per-query") is not None):
                raise UsageError("a part alone cannot count over the whole corpus", remedy=_COUNT_FIRST)
            if team.counts_first:
                with Numbering() as first:
                    survey(plan, source, pieces_of(source, units), team, first, max_bad, on_progress)
                team.gather()
            team.finish()
        translating = None
        if run.wanted and behind.translation is not None:
            translating = stack.enter_context(Translating(behind.translation))
        run.write(
            lambda given: team.run("judge", given, numbering),
            lambda: Found(plan, team.worker, behind, translating, on_progress),
            BadRows(max_bad),
            lambda rows: on_progress("filtering", rows),
            step=made_by(plan, behind),
            read_image=stack.enter_context(HeaderSizes()).read,
            named_by=_COUNT_FIRST if part.count > 1 and counts is None else None,
        )
        if translating is not None:
            translating.finish()
        found = Found(plan, team.worker, behind, translating)
        for saved in run.saved():
            found.load(saved)
        report = found.report(list(source.inputs), None) | {"part": run.shown()}
        if (all_saved := run.saved_by_all()) is not None:
            whole = Found(plan, team.worker, behind)
            for saved in all_saved:
                whole.load(saved)
            whole.check(source)
            run.report(whole.report(list(source.inputs), None))
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report


def _described(plan: Plan, source: Source, units: Sequence[Unit], **more: Any) -> dict[str, Any]:
    return description("filter", plan.fingerprint(), source, units, **more)


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
    compare(run, _described(plan, source, units, parts=part.count), f"--counts {counts}")
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

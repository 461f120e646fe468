"""Rows in, rows that pass out: the two passes of `filter`.

One pass over the input, unless a rule counts over all of it: then the first pass applies only what comes before the
count (the condition and the per-query cap) and counts, and the second does everything. Input from a pipe is
spooled for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from vlcli.curation.behind import NOTHING, Behind
from vlcli.curation.ends import Source, Target
from vlcli.curation.found import Found, Progress, made_by
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.numbering import Numbering
from vlcli.curation.piece_reader import divert
from vlcli.curation.plan import Plan
from vlcli.curation.team import Team
from vlcli.curation.translating import Translating
from vlcli.curation.where import Where
from vlcli.errors import UsageError
from vlcli.records.atomic import check_place, write_json
from vlcli.records.bad import BadRows
from vlcli.records.pieces import Piece
from vlcli.records.reader import repeatable
from vlcli.records.rejects import RejectsWriter


def filter_pairs(
    plan: Plan,
    source: Source,
    target: Target,
    *,
    behind: Behind = NOTHING,
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Progress = lambda _, __: None,
) -> dict[str, Any]:
    """Filters and returns the report, which is written too when `target.report` says where.

    `jobs` processes share the work on large inputs; what is written is the same for any number. Raises UsageError
    for a condition that cannot be, InputError for damage and for more bad rows than `max_bad`.
    """
    cache = behind.translation.cache if behind.translation is not None else None
    target.refuse_clashes(("--translation-cache", cache))
    if target.report is not None:
        check_place(target.report, force=target.force)
    with ExitStack() as stack:
        # Outputs first: a name that is taken is told before the input is read.
        rejects = stack.enter_context(RejectsWriter(target.rejects, force=target.force))
        sizes = stack.enter_context(HeaderSizes())
        step = made_by(plan, behind)
        writer = stack.enter_context(target.open(source.image_root, sizes.read, step))
        held_out = None
        if target.held_out is not None:
            held_out = stack.enter_context(target.of_held_out().open(source.image_root, sizes.read, step))
        job = behind.job(plan, source.renames, writer.relocate, rejects.relocate)
        job = replace(job, head=source.head)
        # Pixels are read in the second pass alone, and then it reads the input anew.
        keeps = not target.embed_images
        team = stack.enter_context(Team(job, jobs, keeps=keeps))
        translating = None
        if behind.translation is not None:
            translating = stack.enter_context(Translating(behind.translation))
        found = stack.enter_context(Found(plan, team.worker, behind, translating, on_progress))
        inputs: Sequence[str] = source.inputs
        kept: list[Piece] | None = None
        if (team.counts_first and not keeps) or (found.selecting.looks_ahead and not team.counts_first):
            inputs = repeatable(inputs)
        if team.counts_first:
            with Numbering() as numbering:
                again = survey(plan, source, source.pieces(inputs), team, numbering, max_bad, on_progress)
            kept = again if keeps else None
            team.gather()
        team.finish()
        if found.selecting.looks_ahead:
            pieces = source.pieces(inputs) if kept is None else kept
            _look_ahead(plan, source, pieces, team, found, max_bad, on_progress)
        bad = BadRows(max_bad, rejects)
        numbering = stack.enter_context(Numbering())
        pieces = source.pieces(inputs, image_bytes=target.embed_images) if kept is None else kept
        for outcome in team.run("judge", pieces, numbering):
            divert(outcome, bad, rejects)
            found.write(outcome, writer, rejects, held_out)
            on_progress("filtering", outcome.read)
        bad.judge()
        found.finish()
        if translating is not None:
            translating.finish()
        found.check(source)
        assert found.rows.given == bad.seen, f"{found.rows.given} rows accounted for, {bad.seen} read"
        report = found.report(list(source.inputs) or ["-"], source.head)
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report


def _look_ahead(
    plan: Plan,
    source: Source,
    pieces: Iterable[Piece],
    team: Team,
    found: Found,
    max_bad: str,
    on_progress: Progress,
) -> None:
    """A pass that judges everything, for selections that have to know which rows pass."""
    bad = BadRows(max_bad, None)
    with Numbering() as numbering, Found(plan, team.worker) as seen:
        for outcome in team.run("judge", pieces, numbering):
            seen.meet(outcome)
            divert(outcome, bad, None)
            assert not isinstance(outcome.kept, bytes)
            for batch in outcome.kept:
                found.selecting.observe(batch)
            on_progress("judging", outcome.read)
        bad.judge()
        seen.check_columns(source)
    found.selecting.decide()


def survey(
    plan: Plan,
    source: Source,
    pieces: Iterator[Piece],
    team: Team,
    numbering: Numbering,
    max_bad: str,
    on_progress: Progress,
    *,
    part_of_many: bool = False,
) -> list[Piece]:
    """The first pass. Returns what the second may read instead of the input, where the team keeps that."""
    again: list[Piece] = []
    bad, found = BadRows(max_bad, None), Found(plan, team.worker)
    by_id = plan.where is not None and "id" in Where(plan.where).columns
    for outcome in team.run("count", pieces, numbering):
        if by_id and part_of_many and outcome.unnamed:
            raise UsageError(
                "--where reads ids, rows have none, and a part alone cannot give them",
                remedy="let filter write the rows with their ids first, without --where",
            )
        found.meet(outcome)
        divert(outcome, bad, None)
        if outcome.again is not None:
            again.append(outcome.again)
        on_progress("counting", outcome.read)
    bad.judge()
    found.check_columns(source)
    return again

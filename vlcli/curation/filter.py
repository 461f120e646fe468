"""Rows in, rows that pass out: the two passes of `filter`.

One pass over the input, unless a rule counts over all of it: then the first pass applies only what comes before the
count (the condition and the per-query cap) and counts, and the second does everything. Input from a pipe is
spooled for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlcli import __version__
from vlcli.curation.fields import Fields
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.judge import BAD, KEPT, Docket, Judge
from vlcli.curation.plan import Plan
from vlcli.curation.query_cap import QueryRanks
from vlcli.curation.report import build_report
from vlcli.curation.rule import Rule, Step
from vlcli.curation.survey import Survey
from vlcli.curation.tally import Checksum, Totals
from vlcli.curation.translating import Translating, Translation
from vlcli.curation.where import Where
from vlcli.errors import UsageError
from vlcli.records import lineage
from vlcli.records.atomic import check_place, is_special, write_json
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.identity import Identity
from vlcli.records.reader import read, repeatable
from vlcli.records.rejects import RejectsWriter
from vlcli.records.sources import sources
from vlcli.records.writer import open_writer

Progress = Callable[[str, int], None]  # (what is being done, rows of this batch)


@dataclass(frozen=True)
class Source:
    """What is read, and how."""

    inputs: Sequence[str]
    format: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    head: int | None = None
    image_root: Path | None = None

    def table(self) -> list[dict[str, str]]:
        """For the plan: what will be read."""
        names = [source.name for source in sources(self.inputs)]
        shown = names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} … {names[-1]}"
        lines = [{"rule": "input", "value": shown, "from": "arguments" if self.inputs else "default"}]
        lines += [
            {"rule": "map", "value": f"{new}={old}", "from": "--map"} for old, new in self.renames.items()
        ]
        if self.head is not None:
            lines.append({"rule": "head", "value": str(self.head), "from": "--head"})
        return lines

    def batches(self, inputs: Sequence[str], bad: BadRows, *, image_bytes: bool = False) -> Iterator[Batch]:
        return read(
            inputs,
            format=self.format,
            renames=self.renames,
            head=self.head,
            image_root=self.image_root,
            image_bytes=image_bytes,
            bad=bad,
        )


@dataclass(frozen=True)
class Target:
    """Where rows, rejects and the report go."""

    output: str | None = None
    format: str | None = None
    rejects: Path | None = None
    report: Path | None = None
    force: bool = False
    embed_images: bool = False

    def refuse_clashes(self, *others: tuple[str, Path | None]) -> None:
        """Raises UsageError where two outputs, or one of the `others`, would take one name."""
        taken: dict[str, str] = {}
        own = (("-o", self.output), ("--rejects", self.rejects), ("--report", self.report))
        for option, path in (*own, *others):
            if path is None or str(path) == "-" or is_special(str(path)):
                continue
            other = taken.setdefault(os.path.realpath(path), option)
            if other != option:
                raise UsageError(f"{other} and {option} name one file, {path}")

    def open(self, image_root: Path | None, read_image: Callable[[str], bytes], step: dict[str, Any]) -> Any:
        """The writer of the rows, a context manager; `read_image` is asked where images are embedded."""
        return open_writer(
            self.output,
            format=self.format,
            force=self.force,
            image_root=image_root,
            embed_images=self.embed_images,
            read_image=read_image if self.embed_images else None,
            step=step,
        )

    def table(self) -> list[dict[str, str]]:
        """For the plan: what will be written, and what stands there already."""
        lines = []
        for name, path in (("output", self.output), ("rejects", self.rejects), ("report", self.report)):
            if path is not None and path != "-":
                fate = "replaced" if self.force else "exists: needs --force"
                lines.append(
                    {"rule": name, "value": str(path), "from": fate if os.path.lexists(path) else "new"}
                )
        return lines or [{"rule": "output", "value": "stdout", "from": "default"}]


def filter_pairs(
    plan: Plan,
    source: Source,
    target: Target,
    *,
    translation: Translation | None = None,
    max_bad: str = "0",
    on_progress: Progress = lambda _, __: None,
) -> dict[str, Any]:
    """Filters and returns the report, which is written too when `target.report` says where.

    Raises UsageError for a condition that cannot be, InputError for damage and for more bad rows than
    `max_bad`.
    """
    target.refuse_clashes(("--translation-cache", translation.cache if translation is not None else None))
    if target.report is not None:
        check_place(target.report, force=target.force)
    where, steps = plan.steps()
    fields = Fields(plan.fields)
    with ExitStack() as stack:
        # Outputs first: a name that is taken is told before the input is read.
        rejects = stack.enter_context(RejectsWriter(target.rejects, force=target.force))
        sizes = stack.enter_context(HeaderSizes())
        rules = plan.fingerprint() | (translation.fingerprint() if translation is not None else {})
        made_by = lineage.step("filter", __version__, rules)
        writer = stack.enter_context(target.open(source.image_root, sizes.read, made_by))
        translating = stack.enter_context(Translating(translation)) if translation is not None else None
        inputs: Sequence[str] = source.inputs
        surveys: dict[str, Survey] = {}
        of_rule: dict[str, Survey] = {}
        for step in steps:
            if isinstance(step, Rule) and step.survey is not None:
                of_rule[step.name] = surveys[step.columns[0]] = stack.enter_context(step.survey())
        if any(survey.reads_input for survey in surveys.values()):
            inputs = repeatable(inputs)
            cap = [step for step in steps if step.name == "max-per-query"]
            _count(plan.where, cap, fields, source, inputs, list(surveys.values()), max_bad, on_progress)
        for survey in surveys.values():
            survey.finish()
        ranks = stack.enter_context(QueryRanks())
        judge = Judge(where, steps, ranks=ranks.number, sizes=sizes, known=surveys, fields=fields)
        identity = stack.enter_context(Identity())
        bad = BadRows(max_bad, rejects)
        rows, texts, checksum = Totals(), Totals(), Checksum()
        unreadable = 0
        for batch in source.batches(inputs, bad, image_bytes=target.embed_images):
            docket = judge.judge(identity.assign(batch))
            unreadable += len(docket.bad)
            _divert(docket, bad)
            kept = docket.result().take(pl.Series(docket.standing))
            _tally(docket, kept, rows, texts)
            checksum.add(kept.frame["image_id"].to_list(), fields.contents(kept))
            _reject(docket, judge, rejects)
            for part in translating.parts(kept, on_progress) if translating is not None else (kept,):
                writer.write(part)
            on_progress("filtering", len(batch))
        if translating is not None:
            translating.finish()
        if where is not None:
            where.finish()
        unchecked = judge.unchecked() if rows.given else []
        for rule, column in unchecked:
            if plan.is_asked(rule):
                raise UsageError(f"--{rule}: no row has a column {column!r}")
        if rows.given and (missing := fields.missing()):
            raise UsageError(f"--fields: no row has a text in {missing[0]!r}")
        unread = bad.count - unreadable  # rows that never made it into a batch
        rows.given += unread
        rows.bad += unread
        assert rows.given == bad.seen, f"{rows.given} rows accounted for, {bad.seen} read"
        report = build_report(
            plan,
            judge,
            inputs=list(source.inputs) or ["-"],
            head=source.head,
            rows=rows,
            texts=texts,
            over={name: found for name, s in of_rule.items() if (found := s.found()) is not None},
            checksum=checksum,
        )
        report["unchecked"] = [{"rule": rule, "column": column} for rule, column in unchecked]
        if translation is not None and translating is not None:
            report["plan"] += translation.table()
            report["translation"] = translating.report()
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report


def _count(
    sql: str | None,
    cap: Sequence[Step],
    fields: Fields,
    source: Source,
    inputs: Sequence[str],
    surveys: Sequence[Survey],
    max_bad: str,
    on_progress: Progress,
) -> None:
    """The first pass: the rows that pass the condition and the per-query cap, and their texts."""
    where = Where(sql) if sql is not None else None  # its own: it remembers what it has seen
    bad = BadRows(max_bad, None)
    needs_images = any(survey.needs_images for survey in surveys) or (
        where is not None and "image_id" in where.columns
    )
    with QueryRanks() as ranks, Identity() as identity:
        judge = Judge(where, cap, ranks=ranks.number)
        for batch in source.batches(inputs, bad):
            if where is not None and "id" in where.columns:
                batch = identity.assign(batch)
            elif needs_images:
                batch = identity.assign_images(batch)
            standing = judge.front(batch).standing
            texts = fields.lines(batch, standing).filter("is_text")
            for survey in surveys:
                survey.add(batch, texts, standing)
            on_progress("counting", len(batch))
    if where is not None:
        where.finish()


def _divert(docket: Docket, bad: BadRows) -> None:
    """Rows whose image cannot be read."""
    batch = docket.batch
    for row, cause in docket.bad:
        raw = next(iter(batch.slice(row, 1).rows()))
        bad.add(batch.file, batch.frame["line"][row], cause, raw, text_lines=batch.text_lines)


def _tally(docket: Docket, kept: Batch, rows: Totals, texts: Totals) -> None:
    charged = docket.charged
    rows.given += len(charged)
    rows.kept += len(kept)
    rows.dropped += int((charged >= 0).sum())
    rows.bad += int((charged == BAD).sum())
    assert len(kept) == int((charged == KEPT).sum())
    numbers = docket.fields.numbers(docket.batch)
    given, kept_texts, bad_texts = int(numbers.sum()), docket.texts_left(), int(numbers[charged == BAD].sum())
    texts.given += given
    texts.kept += kept_texts
    texts.bad += bad_texts
    texts.dropped += given - kept_texts - bad_texts


def _reject(docket: Docket, judge: Judge, rejects: RejectsWriter) -> None:
    """The dropped rows as they came in, each with the rule it is charged to."""
    dropped = docket.charged >= 0
    if not dropped.any():
        return
    places: list[int] = docket.charged[dropped].astype(np.int64).tolist()
    reasons = judge.reasons
    names = [step.name for step in judge.steps]
    rejects.write(
        docket.batch.take(pl.Series(dropped)), [names[p] for p in places], [reasons[p] for p in places]
    )

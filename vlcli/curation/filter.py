"""Rows in, rows that pass out: the two passes of `filter`.

One pass over the input, unless a rule counts over all of it: then the first pass applies only what comes before the
count (the condition and the per-query cap) and counts, and the second does everything. Input from a pipe is
spooled for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from vlcli import __version__
from vlcli.curation.fields import Fields
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.judge import Judge, JudgeCounts, Tops
from vlcli.curation.numbering import Numbering
from vlcli.curation.piecework import Bad, Job, Outcome, PieceWorker, Seen
from vlcli.curation.plan import Plan
from vlcli.curation.report import build_report
from vlcli.curation.tally import Checksum, Count, StepTally, Totals
from vlcli.curation.team import Team
from vlcli.curation.where import Where
from vlcli.errors import UsageError
from vlcli.records import lineage
from vlcli.records.atomic import check_place, is_special, write_json
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.columns import Renames
from vlcli.records.pieces import Piece, Reading, pieces
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

    def pieces(self, inputs: Sequence[str], *, image_bytes: bool = False) -> Iterator[Piece]:
        """`inputs` are these, or copies of them that can be read twice."""
        return pieces(sources(inputs), Reading(self.format, self.renames, image_bytes, self.image_root))


@dataclass(frozen=True)
class Target:
    """Where rows, rejects and the report go."""

    output: str | None = None
    format: str | None = None
    rejects: Path | None = None
    report: Path | None = None
    force: bool = False
    embed_images: bool = False

    def refuse_clashes(self) -> None:
        """Raises UsageError where two outputs would take one name."""
        taken: dict[str, str] = {}
        for option, path in (("-o", self.output), ("--rejects", self.rejects), ("--report", self.report)):
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
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Progress = lambda _, __: None,
) -> dict[str, Any]:
    """Filters and returns the report, which is written too when `target.report` says where.

    `jobs` processes share the work on large inputs; what is written is the same for any number. Raises UsageError
    for a condition that cannot be, InputError for damage and for more bad rows than `max_bad`.
    """
    target.refuse_clashes()
    if target.report is not None:
        check_place(target.report, force=target.force)
    with ExitStack() as stack:
        # Outputs first: a name that is taken is told before the input is read.
        rejects = stack.enter_context(RejectsWriter(target.rejects, force=target.force))
        sizes = stack.enter_context(HeaderSizes())
        writer = stack.enter_context(target.open(source.image_root, sizes.read, made_by(plan)))
        job = Job(plan, dict(source.renames), writer.relocate, rejects.relocate, source.head)
        team = stack.enter_context(Team(job, 1 if source.head is not None else jobs))
        inputs: Sequence[str] = source.inputs
        if team.counts_first:
            inputs = repeatable(inputs)
            with Numbering() as numbering:
                survey(plan, source, source.pieces(inputs), team, numbering, max_bad, on_progress)
            team.gather()
        team.finish()
        found = Found(plan, team.worker)
        bad = BadRows(max_bad, rejects)
        numbering = stack.enter_context(Numbering())
        for outcome in team.run("judge", source.pieces(inputs, image_bytes=target.embed_images), numbering):
            found.add(outcome)
            divert(outcome, bad, rejects)
            if isinstance(outcome.kept, bytes):
                writer.write_lines(outcome.kept, outcome.kept_rows)
            else:
                for batch in outcome.kept:
                    writer.write(batch)
            on_progress("filtering", outcome.read)
        bad.judge()
        found.check(source)
        assert found.rows.given == bad.seen, f"{found.rows.given} rows accounted for, {bad.seen} read"
        report = found.report(list(source.inputs) or ["-"], source.head)
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report


def made_by(plan: Plan) -> dict[str, Any]:
    """The step that the lineage of what is written ends with."""
    return lineage.step("filter", __version__, plan.fingerprint())


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
) -> None:
    """The first pass."""
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
        on_progress("counting", outcome.read)
    bad.judge()
    found.check_columns(source)


def divert(outcome: Outcome, bad: BadRows, rejects: RejectsWriter | None) -> None:
    """Rows that are bad and rows that were dropped, in input order."""
    bad.seen += outcome.read
    for item in outcome.rejects:
        if isinstance(item, Bad):
            bad.add(item.file, item.line, item.cause, item.raw, text_lines=item.text_lines)
        elif rejects is not None:
            rejects.write_lines(item.lines, item.rows)


class Found:
    """What the outcomes of all pieces come to."""

    def __init__(self, plan: Plan, worker: PieceWorker) -> None:
        self._plan, self._worker = plan, worker
        self._where = Where(plan.where) if plan.where is not None else None
        self._judge = Judge(self._where, worker.steps, known=worker.known)
        self._fields = Fields(plan.fields)
        self._unmet: set[str] | None = None  # of --map
        self._lineage: lineage.Chain = ()
        self.rows, self.texts, self._checksum = Totals(), Totals(), Checksum()

    def meet(self, outcome: Outcome) -> None:
        """Which columns there were."""
        seen = outcome.seen
        assert seen is not None
        if outcome.read:
            self._unmet = seen.unmet if self._unmet is None else self._unmet & seen.unmet
        self._fields.met |= seen.fields
        if self._where is not None:
            self._where.absorb(seen.where)

    def add(self, outcome: Outcome) -> None:
        self.meet(outcome)
        self.rows.add(outcome.rows)
        self.texts.add(outcome.texts)
        self._checksum.add_sum(outcome.checksum)
        self._lineage = self._lineage or outcome.lineage
        assert outcome.counts is not None
        self._judge.add(outcome.counts)

    def check_columns(self, source: Source) -> None:
        """After the last row: a column that was named and that no row had is a slip."""
        if self._unmet and source.head is None:
            renames = Renames(source.renames)
            renames.missing = self._unmet
            renames.check_all_seen()
        if self._where is not None:
            self._where.finish()

    def check(self, source: Source) -> None:
        """After the last row, and the same of columns that rules read."""
        self.check_columns(source)
        for rule, column in self._unchecked():
            if self._plan.is_asked(rule):
                raise UsageError(f"--{rule}: no row has a column {column!r}")
        if self.rows.given and (missing := self._fields.missing()):
            raise UsageError(f"--fields: no row has a text in {missing[0]!r}")

    def _unchecked(self) -> list[tuple[str, str]]:
        return self._judge.unchecked() if self.rows.given > self.rows.bad else []

    def report(self, inputs: list[str], head: int | None) -> dict[str, Any]:
        surveys = self._worker.surveys.items()
        report = build_report(
            self._plan,
            self._judge,
            inputs=inputs,
            head=head,
            rows=self.rows,
            texts=self.texts,
            over={name: over for name, survey in surveys if (over := survey.found()) is not None},
            checksum=self._checksum,
        )
        report["lineage"] = list(lineage.extend(self._lineage, made_by(self._plan)))
        report["unchecked"] = [{"rule": rule, "column": column} for rule, column in self._unchecked()]
        return report

    def saved(self) -> dict[str, Any]:
        """As JSON, for `load`; of the most frequent strings only the first."""
        counts = self._judge.counts()
        where = self._where.met if self._where is not None else None
        return {
            "rows": asdict(self.rows),
            "texts": asdict(self.texts),
            "checksum": self._checksum.hex(),
            "lineage": list(self._lineage),
            "tallies": [asdict(tally) for tally in counts.tallies],
            "dropped_texts": _first(counts.dropped_texts),
            "replaced": _first(counts.replaced),
            "found": sorted(counts.found),
            "unmet": sorted(self._unmet) if self._unmet is not None else None,
            "fields": sorted(self._fields.met),
            "where": None if where is None else [where[0], sorted(where[1])],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Add what another has saved."""
        where = saved["where"]
        self.add(
            Outcome(
                [],
                read=saved["rows"]["given"],
                rows=Totals(**saved["rows"]),
                texts=Totals(**saved["texts"]),
                checksum=int(saved["checksum"], 16),
                lineage=tuple(saved["lineage"]),
                counts=JudgeCounts(
                    [
                        StepTally(**{**t, "rows": Count(**t["rows"]), "texts": Count(**t["texts"])})
                        for t in saved["tallies"]
                    ],
                    _tops(saved["dropped_texts"]),
                    _tops(saved["replaced"]),
                    set(saved["found"]),
                ),
                seen=Seen(
                    set(saved["unmet"] or ()),
                    set(saved["fields"]),
                    None if where is None else (where[0], dict.fromkeys(where[1], pl.Null())),
                ),
            )
        )


_SAVED = 1000  # strings of each kind


def _first(tops: Tops) -> dict[str, Any]:
    saved = {}
    for place, (counts, error) in tops.items():
        top = counts.sort(["count", "text"], descending=[True, False])
        beyond = int(top["count"][_SAVED]) if top.height > _SAVED else 0
        saved[str(place)] = {"error": error + beyond, "strings": top.head(_SAVED).rows()}
    return saved


def _tops(saved: dict[str, Any]) -> Tops:
    schema = {"text": pl.String(), "count": pl.Int64()}
    return {
        int(place): (pl.DataFrame(top["strings"], schema, orient="row"), top["error"])
        for place, top in saved.items()
    }

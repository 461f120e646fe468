"""Rows in, rows that pass out: the two passes of `filter`.

One pass over the input, unless a rule counts over all of it: then the first pass applies only what comes before the
count (the condition and the per-query cap) and counts, and the second does everything. Input from a pipe is
spooled for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from vlcli import __version__
from vlcli.curation.behind import NOTHING, Behind
from vlcli.curation.fields import Fields
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.judge import Judge, JudgeCounts, Tops
from vlcli.curation.numbering import Numbering
from vlcli.curation.piecework import Bad, Outcome, PieceWorker, Seen
from vlcli.curation.plan import Plan
from vlcli.curation.report import build_report
from vlcli.curation.selecting import Selecting
from vlcli.curation.tally import Checksum, Count, StepTally, Totals
from vlcli.curation.team import Team
from vlcli.curation.translating import Translating
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
from vlcli.records.writer import Writer, open_writer

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
    held_out: str | None = None  # where rows that are held out go; its name says the format

    def refuse_clashes(self) -> None:
        """Raises UsageError where two outputs would take one name."""
        if self.held_out == "-" and self.output in (None, "-"):
            raise UsageError(
                "--hold-out-to -: stdout has the rows that are kept", remedy="give these -o FILE"
            )
        taken: dict[str, str] = {}
        for option, path in (
            ("-o", self.output),
            ("--rejects", self.rejects),
            ("--report", self.report),
            ("--hold-out-to", self.held_out),
        ):
            if path is None or str(path) == "-" or is_special(str(path)):
                continue
            other = taken.setdefault(os.path.realpath(path), option)
            if other != option:
                raise UsageError(f"{other} and {option} name one file, {path}")

    def of_held_out(self) -> Target:
        """Where the rows held out go, as where the others do."""
        return replace(self, output=self.held_out, format=None)

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
        for name, path in (
            ("output", self.output),
            ("held out", self.held_out),
            ("rejects", self.rejects),
            ("report", self.report),
        ):
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
    behind: Behind = NOTHING,
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
        step = made_by(plan, behind)
        writer = stack.enter_context(target.open(source.image_root, sizes.read, step))
        held_out = None
        if target.held_out is not None:
            held_out = stack.enter_context(target.of_held_out().open(source.image_root, sizes.read, step))
        job = behind.job(plan, source.renames, writer.relocate, rejects.relocate)
        job = replace(job, head=source.head)
        team = stack.enter_context(Team(job, 1 if source.head is not None else jobs))
        translating = None
        if behind.translation is not None:
            translating = stack.enter_context(Translating(behind.translation))
        found = stack.enter_context(Found(plan, team.worker, behind, translating))
        inputs: Sequence[str] = source.inputs
        if team.counts_first or found.selecting.looks_ahead:
            inputs = repeatable(inputs)
        if team.counts_first:
            with Numbering() as numbering:
                survey(plan, source, source.pieces(inputs), team, numbering, max_bad, on_progress)
            team.gather()
        team.finish()
        if found.selecting.looks_ahead:
            _look_ahead(plan, source, inputs, team, found, max_bad, on_progress)
        bad = BadRows(max_bad, rejects)
        numbering = stack.enter_context(Numbering())
        pieces = source.pieces(inputs, image_bytes=target.embed_images)
        for outcome in team.run("judge", pieces, numbering):
            divert(outcome, bad, rejects)
            found.write(outcome, writer, rejects, held_out, on_progress)
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
    inputs: Sequence[str],
    team: Team,
    found: Found,
    max_bad: str,
    on_progress: Progress,
) -> None:
    """A pass that judges everything, for selections that have to know which rows pass."""
    bad = BadRows(max_bad, None)
    with Numbering() as numbering, Found(plan, team.worker) as seen:
        for outcome in team.run("judge", source.pieces(inputs), numbering):
            seen.meet(outcome)
            divert(outcome, bad, None)
            assert not isinstance(outcome.kept, bytes)
            for batch in outcome.kept:
                found.selecting.observe(batch)
            on_progress("judging", outcome.read)
        bad.judge()
        seen.check_columns(source)
    found.selecting.decide()


def made_by(plan: Plan, behind: Behind) -> dict[str, Any]:
    """The step that the lineage of what is written ends with."""
    return lineage.step("filter", __version__, plan.fingerprint() | behind.fingerprint())


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
    """What the outcomes of all pieces come to, and what is done with the rows that are kept. A context manager."""

    def __init__(
        self,
        plan: Plan,
        worker: PieceWorker,
        behind: Behind = NOTHING,
        translating: Translating | None = None,
    ) -> None:
        self._plan, self._worker, self._behind = plan, worker, behind
        self._translating = translating
        self.selecting = Selecting(behind.selections, Fields(plan.fields))
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
        if not self.selecting.chain:
            self._checksum.add_sum(outcome.checksum)
        self._lineage = self._lineage or outcome.lineage
        assert outcome.counts is not None
        self._judge.add(outcome.counts)

    def write(
        self,
        outcome: Outcome,
        writer: Writer,
        rejects: RejectsWriter | None,
        held_out: Writer | None,
        on_progress: Progress,
    ) -> None:
        """Adds the outcome, and writes what goes on of the rows that passed."""
        self.add(outcome)
        if isinstance(outcome.kept, bytes):
            writer.write_lines(outcome.kept, outcome.kept_rows)
            return
        came = outcome.came or outcome.kept
        for passed, as_it_came in zip(outcome.kept, came, strict=True):
            batch = self.selecting.pass_on(passed, as_it_came, self.rows, self.texts, rejects, held_out)
            if self.selecting.chain:
                self._checksum.add(batch.frame["image_id"], self._fields.contents(batch))
            if self._translating is None:
                writer.write(batch)
            else:
                for part in self._translating.parts(batch, on_progress):
                    writer.write(part)

    def finish(self) -> None:
        """After the last row."""
        self.selecting.finish()

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *error: Any) -> None:
        self.selecting.__exit__(*error)

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
            selecting=self.selecting,
        )
        report["lineage"] = list(lineage.extend(self._lineage, made_by(self._plan, self._behind)))
        report["unchecked"] = [{"rule": rule, "column": column} for rule, column in self._unchecked()]
        if self._behind.translation is not None and self._translating is not None:
            report["plan"] += self._behind.translation.table()
            report["translation"] = self._translating.report()
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
            "selected": self.selecting.counts(),
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
        self.selecting.add(saved["selected"])
        self._checksum.add_sum(int(saved["checksum"], 16) if self.selecting.chain else 0)
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

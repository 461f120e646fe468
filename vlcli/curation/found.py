"""What the outcomes of all pieces come to: counts, the report, and the rows that are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import polars as pl

from vlcli import __version__
from vlcli.curation.behind import NOTHING, Behind
from vlcli.curation.ends import Source
from vlcli.curation.fields import Fields
from vlcli.curation.judge import Judge, JudgeCounts, Tops
from vlcli.curation.piece_reader import Unmet
from vlcli.curation.piecework import Outcome, PieceWorker, Seen
from vlcli.curation.plan import Plan
from vlcli.curation.report import build_report
from vlcli.curation.selecting import Selecting
from vlcli.curation.tally import Checksum, Count, StepTally, Totals
from vlcli.curation.translating import Translating
from vlcli.curation.where import Where
from vlcli.errors import UsageError
from vlcli.records import lineage
from vlcli.records.rejects import RejectsWriter
from vlcli.records.writer import Writer

Progress = Callable[[str, int], None]  # (what is being done, rows of this batch)


def made_by(plan: Plan, behind: Behind) -> dict[str, Any]:
    """The step that the lineage of what is written ends with."""
    return lineage.step("filter", __version__, plan.fingerprint() | behind.fingerprint())


class Found:
    """What the outcomes of all pieces come to, and what is done with the rows that are kept. A context manager."""

    def __init__(
        self,
        plan: Plan,
        worker: PieceWorker,
        behind: Behind = NOTHING,
        translating: Translating | None = None,
        on_progress: Progress = lambda _, __: None,
    ) -> None:
        self._plan, self._worker, self._behind = plan, worker, behind
        self._translating, self._on_progress = translating, on_progress
        self.selecting = Selecting(behind.selections, Fields(plan.fields))
        self._where = Where(plan.where) if plan.where is not None else None
        self._judge = Judge(self._where, worker.steps, known=worker.known)
        self._fields = Fields(plan.fields)
        self._unmet = Unmet()
        self._lineage: lineage.Chain = ()
        self.rows, self.texts, self._checksum = Totals(), Totals(), Checksum()

    def meet(self, outcome: Outcome) -> None:
        """Which columns there were."""
        seen = outcome.seen
        assert seen is not None
        self._unmet.meet(outcome.read, seen.unmet)
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
        held_out: Writer | None = None,
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
                for part in self._translating.parts(batch, self._on_progress):
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
        if source.head is None:
            self._unmet.check(source.renames)
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
            "unmet": None if self._unmet.names is None else sorted(self._unmet.names),
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

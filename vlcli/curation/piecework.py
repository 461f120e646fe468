"""What `filter` does with one piece of its input, in this process or another: count, or judge."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.fields import Fields
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.judge import BAD, KEPT, Docket, Judge, JudgeCounts
from vlcli.curation.numbering import IDS, QUERIES
from vlcli.curation.piece_reader import Bad, Came, Dropped, PieceReader, joined, without_id
from vlcli.curation.plan import Plan
from vlcli.curation.query_cap import RANK, query_keys, ranks
from vlcli.curation.repeated_rows import RepeatedRows
from vlcli.curation.rule import Rule, Step
from vlcli.curation.survey import Survey
from vlcli.curation.tally import Checksum, Totals
from vlcli.curation.where import Where
from vlcli.records.batch import Batch
from vlcli.records.encode import json_lines
from vlcli.records.identity import Ids, Unnamed
from vlcli.records.lineage import Chain
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece, Shaped
from vlcli.records.references import Relocator
from vlcli.records.rejects import reject_lines


@dataclass
class Outcome(Came):
    """What the rules made of one piece."""

    kept: list[Batch] | bytes = field(default_factory=list)  # bytes: JSON lines
    kept_rows: int = 0
    came: list[Batch] = field(default_factory=list)  # the kept rows as they came in, where that is asked for
    rows: Totals = field(default_factory=Totals)
    texts: Totals = field(default_factory=Totals)
    checksum: int = 0
    counts: JudgeCounts | None = None
    seen: Seen | None = None
    lineage: Chain = ()  # of the source
    again: Piece | None = None  # the same rows for the second pass, where it need not read the input


@dataclass(frozen=True)
class Seen:
    """Which columns that were named have been there: whether all have is known at the end."""

    unmet: set[str]  # of --map
    fields: set[str]
    where: Any


@dataclass(frozen=True)
class Job:
    """What the worker of a run is told once."""

    plan: Plan
    renames: dict[str, str]
    lines: Relocator | None = None  # kept rows become JSON lines for a reader there; None: they stay batches
    rejects: Relocator | None = None  # the same for rejects; None: they are only counted
    came: bool = False  # whether the rows that are kept are wanted as they came in, too
    head: int | None = None  # input rows that count, where one worker reads all
    keep: Path | None = None  # where what the first pass has parsed waits for the second
    counts_ids: bool = (
        False  # the first pass numbers rows without an id, for the parts that come after this one
    )


_NO_KEYS: Keys = np.zeros(0, np.uint64)


class PieceWorker(PieceReader):
    """Holds what is made once in a process: rules, and what they look up. A context manager."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._job = job
        where, self.steps = job.plan.steps()
        self._where_sql = where.sql if where is not None else None
        self._cap = [step for step in self.steps if step.name == "max-per-query"]
        self._fields = Fields(job.plan.fields)
        self._stack = ExitStack()
        self._stack.callback(super().close)
        self._sizes = self._stack.enter_context(HeaderSizes())
        self._repeated = RepeatedRows()
        self._stack.callback(self._repeated.close)
        self.surveys: dict[str, Survey] = {}  # by the rule
        for step in self.steps:
            if isinstance(step, Rule) and step.survey is not None:
                self.surveys[step.name] = self._stack.enter_context(step.survey())
        self.known = {
            step.columns[0]: self.surveys[step.name]
            for step in self.steps
            if isinstance(step, Rule) and step.name in self.surveys
        }

    @property
    def counts_first(self) -> bool:
        """Whether a rule wants to see the whole input before any row is judged."""
        return any(survey.reads_input for survey in self.surveys.values())

    def questions(self, kind: str) -> list[str]:
        """What `count` or `judge` asks for each piece, in this order."""
        named = [IDS] if kind == "judge" or self._names_rows else []
        return named + ([QUERIES] if self._cap else [])

    @property
    def _names_rows(self) -> bool:
        """Whether the first pass needs ids."""
        return self._job.counts_ids or self._where_reads_ids

    @property
    def _names_all(self) -> bool:
        """Whether the second pass needs ids of rows that do not pass, or before it is known which do."""
        return self._job.rejects is not None or self._job.came or self._where_reads_ids

    @property
    def _where_reads_ids(self) -> bool:
        return self._where_sql is not None and "id" in Where(self._where_sql).columns

    def count(self, piece: Piece) -> Generator[Keys, NDArray[np.int64], Outcome]:
        """The first pass: the rows that pass the condition and the per-query cap, and their texts, are surveyed."""
        outcome = Outcome()
        where = self._where()
        made = list(self._read(piece, outcome))
        if self._job.keep is not None:
            outcome.again = self._kept(piece, made, self._job.keep)
        batches = [batch for batch, _ in made]
        outcome.rejects += [row for _, bad in made for row in bad]
        outcome.unnamed = without_id(batches)
        if self._names_rows:
            batches = yield from self._named(batches)
        else:
            needs_images = any(survey.needs_images for survey in self.surveys.values()) or (
                where is not None and "image_id" in where.columns
            )
            batches = [self._noticed(batch, needs_images) for batch in batches]
        ranked = (yield from self._ranks(batches)) if self._cap else []
        judge = Judge(where, self._cap, ranks=_in_turn(ranked))
        if outcome.again is not None and self._cap:
            outcome.again = replace(outcome.again, noted=[_beyond(self._cap[0], column) for column in ranked])
        for batch in batches:
            standing = judge.front(batch).standing
            texts = self._fields.lines(batch, standing).filter("is_text")
            for survey in self.surveys.values():
                survey.add(batch, texts, standing)
        outcome.seen = self._seen(where, piece)
        return outcome

    def _noticed(self, batch: Batch, needs_images: bool) -> Batch:
        """The batch, of which the rows that are equal to others come to be known where that takes no pixels."""
        if self._job.keep is not None and not self._identity.reads_pixels(batch):
            unnamed = self._identity.ask(batch)
            self._repeated.add(unnamed)
            return unnamed.batch
        self._repeated.give_up()
        return self._identity.assign_images(batch) if needs_images else batch

    def _numbered(
        self, batches: list[Batch]
    ) -> Generator[Keys, NDArray[np.int64], list[tuple[Unnamed, NDArray[np.int64]]]]:
        """Asks only of rows that a first pass has not seen to be alone."""
        known = self._repeated.known
        if known is None:
            return (yield from super()._numbered(batches))
        unnamed = [self._identity.ask(batch) for batch in batches]
        keys = [one.keys for one in unnamed]
        found = [known.find(one)[0] for one in keys]
        answers = yield joined([one[rows] for one, rows in zip(keys, found, strict=True)])
        numbered, start = [], 0
        for one, own, rows in zip(unnamed, keys, found, strict=True):
            ordinals = np.zeros(len(own), np.int64)
            ordinals[rows] = answers[start : start + len(rows)]
            start += len(rows)
            numbered.append((one, ordinals))
        return numbered

    def judge(self, piece: Piece) -> Generator[Keys, NDArray[np.int64], Outcome]:
        """All rules in their order, and what is kept; of a piece that is not wanted rows are only numbered."""
        outcome = Outcome()
        if not piece.is_wanted:
            numbered = yield from self._numbered([batch for batch, _ in self._read(piece, outcome)])
            if self._cap:
                yield from self._ranks([one.batch for one, _ in numbered])
            return outcome
        where, checksum, lines = self._where(), Checksum(), list[bytes]()
        found = list(self._read(piece, outcome))
        outcome.unnamed = without_id([batch for batch, _ in found])
        numbered = yield from self._numbered([batch for batch, _ in found])
        batches = [one.batch for one, _ in numbered]
        # Of all rows, where more than the kept ones need theirs.
        names: list[Ids | None] = [None] * len(batches)
        if self._names_all:
            names = [one.ids(ordinals) for one, ordinals in numbered]
            batches = [batch.with_columns(n.ids) for batch, n in zip(batches, names, strict=True) if n]
        if piece.noted is not None:
            yield _NO_KEYS
            ranked = [_past_any(beyond) for beyond in piece.noted]
        else:
            ranked = (yield from self._ranks(batches)) if self._cap else []
        judge = Judge(
            where,
            self.steps,
            ranks=_in_turn(ranked),
            sizes=self._sizes,
            known=self.known,
            fields=self._fields,
        )
        for batch, (one, ordinals), named, (_, bad) in zip(batches, numbered, names, found, strict=True):
            outcome.lineage = outcome.lineage or batch.lineage
            outcome.rejects += bad
            outcome.rows.given += len(bad)
            outcome.rows.bad += len(bad)
            docket = judge.judge(batch)
            standing = pl.Series(docket.standing)
            kept = docket.result().take(standing)
            if named is None:
                ids, first = one.ids(ordinals, docket.standing)
                kept = kept.with_columns(ids)
            else:
                first = None if named.firsts is None else named.firsts.filter(standing)
            outcome.rejects += _unreadable(docket)
            self._tally(docket, kept, outcome)
            self._reject(docket, judge, outcome)
            contents = self._fields.contents(kept)
            if first is None or docket.texts_changed or not isinstance(contents, pl.Series):
                checksum.add(kept.frame["image_id"], contents)
            else:  # it is what the ids are made of
                checksum.add_hex(first)
            if self._job.lines is not None:
                lines.append(json_lines(kept, self._job.lines))
            elif len(kept):
                assert isinstance(outcome.kept, list)
                outcome.kept.append(kept)
                if self._job.came:
                    outcome.came.append(docket.batch.take(standing))
            outcome.kept_rows += len(kept)
        if self._job.lines is not None:
            outcome.kept = b"".join(lines)
        outcome.checksum, outcome.counts, outcome.seen = (
            checksum.value,
            judge.counts(),
            self._seen(where, piece),
        )
        return outcome

    def save(self, folder: Path) -> Path:
        """What `count` has surveyed, to a directory of this process in `folder`, which is returned."""
        folder /= str(os.getpid())
        folder.mkdir(parents=True)
        self.save_to(folder)
        return folder

    def save_to(self, folder: Path) -> None:
        """The same, to this directory."""
        for name, survey in self._gathered():
            (folder / name).mkdir()
            survey.save(folder / name)

    def merge(self, folders: Sequence[Path]) -> None:
        """What others have saved."""
        for name, survey in self._gathered():
            survey.merge([folder / name for folder in folders])

    def finish(self) -> None:
        """After the first pass."""
        for _, survey in self._gathered():
            survey.finish()

    def freeze(self, folder: Path) -> None:
        """What rules look up, for other processes."""
        for name, survey in self._gathered():
            (folder / name).mkdir()
            survey.freeze(folder / name)

    def thaw(self, folder: Path) -> None:
        for name, survey in self._gathered():
            survey.thaw(folder / name)

    def _gathered(self) -> list[tuple[str, Survey | RepeatedRows]]:
        """All that a first pass gathers."""
        rows: list[tuple[str, Survey | RepeatedRows]] = (
            [("repeated rows", self._repeated)] if self._job.keep is not None else []
        )
        return [*self.surveys.items(), *rows]

    def close(self) -> None:
        self._stack.close()

    def _where(self) -> Where | None:
        return (
            Where(self._where_sql) if self._where_sql is not None else None
        )  # each remembers what it has seen

    def _seen(self, where: Where | None, piece: Piece) -> Seen:
        met = where.met if where is not None else None
        unmet = piece.content.unmet if isinstance(piece.content, Shaped) else self.unmet
        return Seen(set(unmet), set(self._fields.met), met)

    def _ranks(self, batches: list[Batch]) -> Generator[Keys, NDArray[np.int64], list[pl.Series]]:
        where, queries = self._where(), []
        for batch in batches:
            column = batch.frame["query"]
            queries.append(column if where is None else column.filter(where.judge(where.view(batch))))
        keys = [query_keys(column) for column in queries]
        before = yield joined(keys)
        ends = np.cumsum([0, *map(len, keys)])
        return [ranks(column, before[ends[i] : ends[i + 1]]) for i, column in enumerate(queries)]

    def _tally(self, docket: Docket, kept: Batch, outcome: Outcome) -> None:
        charged, rows, texts = docket.charged, outcome.rows, outcome.texts
        rows.given += len(charged)
        rows.kept += len(kept)
        rows.dropped += int((charged >= 0).sum())
        rows.bad += int((charged == BAD).sum())
        assert len(kept) == int((charged == KEPT).sum())
        numbers = docket.fields.numbers(docket.batch)
        given, left, bad = int(numbers.sum()), docket.texts_left(), int(numbers[charged == BAD].sum())
        texts.add(Totals(given, left, given - left - bad, bad))

    def _reject(self, docket: Docket, judge: Judge, outcome: Outcome) -> None:
        """The dropped rows as they came in, each with the rule it is charged to."""
        dropped = docket.charged >= 0
        places: list[int] = docket.charged[dropped].astype(np.int64).tolist()
        if not places:
            return
        lines = b""
        if self._job.rejects is not None:
            names, reasons = [step.name for step in judge.steps], judge.reasons
            lines = reject_lines(
                docket.batch.take(pl.Series(dropped)),
                [names[p] for p in places],
                [reasons[p] for p in places],
                self._job.rejects,
            )
        outcome.rejects.append(Dropped(lines, len(places)))


def _beyond(cap: Step, ranks: pl.Series) -> tuple[int, NDArray[np.int64]]:
    """How many rows there are, and which of them the cap drops."""
    assert isinstance(cap, Rule)
    keep = pl.DataFrame({RANK: ranks}).select(cap.keep.fill_null(False)).to_series().to_numpy()
    return len(keep), np.flatnonzero(~keep)


def _past_any(beyond: tuple[int, NDArray[np.int64]]) -> pl.Series:
    """Ranks that make the cap drop the same rows."""
    rows, dropped = beyond
    ranks = pl.repeat(None, rows, dtype=pl.Int64(), eager=True)
    return ranks.scatter(dropped, 1 << 62) if len(dropped) else ranks


def _in_turn(found: list[pl.Series]) -> Any:
    """`ranks` for a judge that is asked batch by batch."""
    waiting = iter(found)
    return lambda queries: next(waiting)


def _unreadable(docket: Docket) -> list[Bad]:
    """Rows whose image cannot be read."""
    batch = docket.batch
    found = []
    for row, cause in docket.bad:
        raw = next(iter(batch.slice(row, 1).rows()))
        found.append(Bad(batch.file, int(batch.frame["line"][row]), cause, raw, batch.text_lines))
    return found

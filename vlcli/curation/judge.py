"""A batch before the rules: which rows and texts stand, and which rule each of the others is charged to.

Accounting is sequential whatever is computed at once: rules without state are evaluated together on all that
stands before them, and their verdicts are then applied in order. Rule k therefore counts what survived the
rules before it, and a row is charged to the first rule that fails it; a row with several texts, to the rule
that took the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.fields import Fields
from vlcli.curation.measures import measure
from vlcli.curation.numbers import number_column
from vlcli.curation.query_cap import RANK
from vlcli.curation.rule import Change, Rule, Step
from vlcli.curation.survey import LookUp
from vlcli.curation.tally import StepTally, TopStrings
from vlcli.curation.where import Where
from vlcli.records.batch import COLUMNS, Batch

KEPT, BAD = -1, -2  # in `charged`; 0, 1, … is the place of a rule
_SIZE = ("width", "height")

Sizes = Callable[[Batch], tuple[pl.DataFrame, list[tuple[int, str]]]]
Ranks = Callable[[pl.Series], pl.Series]


@dataclass
class Docket:
    """One batch while it is judged. Rows and texts are numbered as they stand in the batch."""

    batch: Batch
    fields: Fields
    standing: NDArray[np.bool_]  # (rows,)
    charged: NDArray[np.int16]  # (rows,) KEPT, BAD or a rule's place
    bad: list[tuple[int, str]]  # rows that cannot be judged, and why
    # The texts that stand: row, text, is_text (false: the line of a row without any), field, counts and measures.
    texts: pl.DataFrame | None = None
    texts_changed: bool = False

    @classmethod
    def of(cls, batch: Batch, fields: Fields) -> Docket:
        n = len(batch)
        return cls(batch, fields, np.ones(n, np.bool_), np.full(n, KEPT, np.int16), [])

    def texts_left(self) -> int:
        """In the rows that stand."""
        if self.texts is None:
            return int(self.fields.numbers(self.batch)[self.standing].sum())
        return int(self.texts["is_text"].sum())

    def result(self) -> Batch:
        """All rows, with the sizes that were looked up and, in rows that stand, the texts that are left."""
        if self.texts is None or not self.texts_changed:
            return self.batch
        return self.fields.put_back(self.batch, self.texts, self.standing)


Tops = dict[
    int, tuple[pl.DataFrame, int]
]  # by the place of a step: strings with their counts, and their error


@dataclass(frozen=True)
class JudgeCounts:
    """What a judge has counted, as it travels between processes."""

    tallies: list[StepTally]
    dropped_texts: Tops
    replaced: Tops
    found: set[str]


class Judge:
    """Applies a plan's steps to batch after batch, in input order, and counts."""

    def __init__(
        self,
        where: Where | None,
        steps: Sequence[Step],
        *,
        ranks: Ranks | None = None,
        sizes: Sizes | None = None,
        known: Mapping[str, LookUp] | None = None,
        fields: Fields | None = None,
    ) -> None:
        """`ranks` numbers the rows of each query from 1 on; `sizes` fills width and height of a batch where
        they are absent; `known` is what supplies the columns of rules that look beyond the row;
        `fields` are what is judged of a row."""
        self._where, self._fields = where, fields or Fields()
        self.steps: list[Step] = [*([where.rule()] if where else []), *steps]
        self._ranks, self._sizes, self._known = ranks, sizes, known or {}
        self.tallies = [
            StepTally(
                step.name,
                step.scope,
                has_texts=isinstance(step, Change) or step.judges == "text",
                changes=isinstance(step, Change),
            )
            for step in self.steps
        ]
        self.dropped_texts = {
            i: TopStrings()
            for i, step in enumerate(self.steps)
            if isinstance(step, Rule) and step.judges == "text"
        }
        self.replaced = {i: TopStrings() for i, step in enumerate(self.steps) if isinstance(step, Change)}
        self.found: set[str] = set()  # columns of the rows' own in which a rule has met a value
        self._front = sum(_is_front(step) for step in self.steps)
        assert all(_is_front(step) for step in self.steps[: self._front]), "the per-query cap comes first"

    def counts(self) -> JudgeCounts:
        """What it has counted so far, to be added to what another judge of the same steps has."""
        dropped, replaced = (
            {i: (top.counts(), top.error) for i, top in tops.items()}
            for tops in (self.dropped_texts, self.replaced)
        )
        return JudgeCounts(self.tallies, dropped, replaced, self.found)

    def add(self, other: JudgeCounts) -> None:
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.add(theirs)
        for mine_of, theirs_of in (
            (self.dropped_texts, other.dropped_texts),
            (self.replaced, other.replaced),
        ):
            for i, (counts, error) in theirs_of.items():
                mine_of[i].add_counts(counts, error)
        self.found |= other.found

    @property
    def reasons(self) -> list[str]:
        return [step.reason for step in self.steps]

    def unchecked(self) -> list[tuple[str, str]]:
        """Rules and the column for want of which each has judged nothing."""
        return [
            (step.name, name)
            for step in self.steps
            if isinstance(step, Rule) and step.name != "where" and step.judges == "row"
            for name in step.columns
            if name not in {*COLUMNS, *self.found, *self._known, RANK}
        ]

    def front(self, batch: Batch) -> Docket:
        """Only the condition and the per-query cap: what the frequency of texts is counted after."""
        docket = Docket.of(batch, self._fields)
        for place in range(self._front):
            if self._where is not None and place == 0:
                keep = self._where.judge(self._where.view(batch)).to_numpy()
            else:
                keep = self._within_query(docket, self.steps[place])
            self._rows(docket, place, keep)
        return docket

    def judge(self, batch: Batch) -> Docket:
        """All steps, in order."""
        docket = self.front(batch)
        for places in self._phases():
            step = self.steps[places[0]]
            if isinstance(step, Change):
                self._change(docket, places[0], step)
            else:
                self._judge_together(docket, places)
        return docket

    def _phases(self) -> Iterator[list[int]]:
        """Places of rules that are evaluated in one pass; a change and a costly rule stand alone, and texts are not
        looked at before the rules on rows that come first have spoken."""
        together: list[int] = []
        judged = ""
        for place in range(self._front, len(self.steps)):
            step = self.steps[place]
            alone = isinstance(step, Change) or step.costly
            kind = step.judges if isinstance(step, Rule) else ""
            if together and (alone or kind != judged):
                yield together
                together = []
            together.append(place)
            judged = kind
            if alone:
                yield together
                together = []
        if together:
            yield together

    def _within_query(self, docket: Docket, rule: Step) -> NDArray[np.bool_]:
        assert isinstance(rule, Rule)
        assert self._ranks is not None
        queries = docket.batch.frame["query"].filter(docket.standing)
        keep = np.ones(len(docket.standing), np.bool_)
        frame = pl.DataFrame({RANK: self._ranks(queries)})
        keep[docket.standing] = frame.select(rule.keep.fill_null(False)).to_series().to_numpy()
        return keep

    def _judge_together(self, docket: Docket, places: list[int]) -> None:
        rules = [(place, step) for place in places if isinstance(step := self.steps[place], Rule)]
        of_rows = [(place, rule) for place, rule in rules if rule.judges == "row"]
        of_texts = [(place, rule) for place, rule in rules if rule.judges == "text"]
        if any(name in _SIZE for _, rule in of_rows for name in rule.columns):
            self._fill_sizes(docket)
        verdicts: dict[int, NDArray[np.bool_]] = {}
        if of_rows:
            for place, keep in _evaluate(self._rows_frame(docket.batch, of_rows), of_rows):
                verdicts[place] = keep
        if of_texts:
            texts = self._texts(docket)
            for name in dict.fromkeys(name for _, rule in of_texts for name in rule.columns):
                if name not in texts.columns:
                    texts = docket.texts = self._measure(docket, texts, name)
            for place, keep in _evaluate(texts, of_texts):
                verdicts[place] = keep
        row_of_text = docket.texts["row"].to_numpy() if docket.texts is not None else np.empty(0, np.uint32)
        left = docket.standing[row_of_text]
        for place, rule in rules:
            if rule.judges == "row":
                self._rows(docket, place, verdicts[place])
                left &= docket.standing[row_of_text]
            else:
                left = self._judge_texts(docket, place, verdicts[place], left)
        if docket.texts is not None:
            docket.texts = docket.texts.filter(left)

    def _rows_frame(self, batch: Batch, rules: list[tuple[int, Rule]]) -> pl.DataFrame:
        """The frame with what the rules read of the row's own columns, as numbers."""
        columns = []
        for name in dict.fromkeys(name for _, rule in rules for name in rule.columns):
            if name in self._known:
                columns.append(self._known[name].look_up(batch, _NO_TEXTS).alias(name))
            elif name not in batch.frame.columns:
                columns.append(number_column(batch, name))
                self.found |= {name} if columns[-1].null_count() < len(batch) else set()
        return batch.frame.with_columns(columns)

    def _measure(self, docket: Docket, texts: pl.DataFrame, name: str) -> pl.DataFrame:
        """The texts with one more column that a rule reads."""
        if name in self._known:
            return texts.with_columns(self._known[name].look_up(docket.batch, texts).alias(name))
        return measure(texts, name)

    def _rows(self, docket: Docket, place: int, keep: NDArray[np.bool_]) -> None:
        seen = docket.standing
        docket.charged[seen & ~keep] = place
        docket.standing = seen & keep
        self.tallies[place].rows.add(int(seen.sum()), int(docket.standing.sum()))

    def _judge_texts(
        self, docket: Docket, place: int, keep: NDArray[np.bool_], left: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """The texts that are left after one rule; rows without any fall."""
        assert docket.texts is not None
        rows, is_text = docket.texts["row"].to_numpy(), docket.texts["is_text"].to_numpy()
        after = left & keep
        fallen = left & ~keep & is_text
        self.tallies[place].texts.add(int((left & is_text).sum()), int((after & is_text).sum()))
        has_text = np.zeros(len(docket.standing), np.bool_)
        has_text[rows[after]] = True
        if fallen.any():
            docket.texts_changed |= bool(
                has_text[rows[fallen]].any()
            )  # a row that stands has lost one of several
            self.dropped_texts[place].add(docket.texts["text"].filter(fallen))
        self._rows(docket, place, has_text)
        return after

    def _change(self, docket: Docket, place: int, step: Change) -> None:
        texts = self._texts(docket)
        for name in self._looked_up(place):  # as the texts were written
            if name not in texts.columns:
                texts = self._measure(docket, texts, name)
        old = texts["text"].to_list()
        new, replaced = step.apply(old)
        changed = sum(a != b for a, b in zip(old, new, strict=True))
        count, seen = int(texts["is_text"].sum()), int(docket.standing.sum())
        tally = self.tallies[place]
        tally.rows.add(seen, seen)
        tally.texts.add(count, count)
        tally.changed_texts += changed
        tally.replaced += len(replaced)
        self.replaced[place].add(replaced)
        if changed:
            docket.texts_changed = True
            # Measures of the old texts go with them.
            unmeasured = texts.select(
                "row", "is_text", "field", *(c for c in texts.columns if c in self._known)
            )
            docket.texts = unmeasured.with_columns(text=pl.Series(new, dtype=pl.String()))

    def _looked_up(self, place: int) -> list[str]:
        """What rules on texts behind `place` have looked up."""
        rules = [s for s in self.steps[place:] if isinstance(s, Rule) and s.judges == "text"]
        return [name for rule in rules for name in rule.columns if name in self._known]

    def _texts(self, docket: Docket) -> pl.DataFrame:
        """The texts of the rows that stand, one a line."""
        if docket.texts is None:
            docket.texts = self._fields.lines(docket.batch, docket.standing)
        return docket.texts

    def _fill_sizes(self, docket: Docket) -> None:
        """Width and height of the rows that stand; rows whose image cannot be read turn bad."""
        frame = docket.batch.frame
        known = frame.select(
            pl.all_horizontal((pl.col(name) > 0).fill_null(False) for name in _SIZE)
        ).to_series()
        wanted = np.flatnonzero(docket.standing & ~known.to_numpy())
        if not len(wanted):
            return
        assert self._sizes is not None
        part = replace(docket.batch, frame=frame[wanted], rest=[])
        sizes, bad = self._sizes(part)
        columns = []
        for name in _SIZE:
            column = frame[name].clone()
            # a row whose image cannot be read goes to --rejects as it came
            columns.append(column.scatter(wanted, sizes[name].fill_null(part.frame[name])))
        docket.batch = replace(docket.batch, frame=frame.with_columns(columns))
        for place, cause in bad:
            row = int(wanted[place])
            docket.bad.append((row, cause))
            docket.charged[row] = BAD
            docket.standing[row] = False


_NO_TEXTS = pl.DataFrame(schema={"row": pl.UInt32(), "text": pl.String(), "is_text": pl.Boolean()})


def _is_front(step: Step) -> bool:
    return step.name in ("where", "max-per-query")


def _evaluate(frame: pl.DataFrame, rules: list[tuple[int, Rule]]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """All rules' verdicts in one pass over the frame."""
    verdicts: Any = frame.select(rule.keep.fill_null(False).alias(str(place)) for place, rule in rules)
    for place, _ in rules:
        yield place, verdicts[str(place)].to_numpy()

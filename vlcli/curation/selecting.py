"""The stage behind the rules: what the selections take of the rows that pass.

Selections that can say of a row whether it is taken when it comes do so. Where one has to know all rows, the rows are
judged twice: the first time only their features are kept, on disk, all selections decide on these, and what they say
of each row, one or two bytes, waits for the second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.features import Features
from vlcli.curation.fields import Fields
from vlcli.curation.first_rows import First, FirstImages
from vlcli.curation.ratio_split import COLUMN, RatioSplit
from vlcli.curation.row_table import RowTable
from vlcli.curation.selection import HELD_OUT, LEFT_OUT, Selection
from vlcli.curation.selections import Selections
from vlcli.curation.tally import Checksum, Totals
from vlcli.errors import InputError
from vlcli.records.batch import Batch
from vlcli.records.rejects import RejectsWriter
from vlcli.records.writer import Writer

_KEPT, _HELD_OUT = -1, -2  # in `charged`; 0, 1, … is the place of a selection


@dataclass
class Chosen:
    """What came of the rows of a batch."""

    charged: NDArray[np.int8]  # (rows,) _KEPT, _HELD_OUT, or the place of the selection that left it out
    sides: NDArray[np.int8]  # (rows,) of a split

    @property
    def kept(self) -> NDArray[np.bool_]:
        return self.charged == _KEPT

    @property
    def held_out(self) -> NDArray[np.bool_]:
        return self.charged == _HELD_OUT

    @property
    def dropped(self) -> NDArray[np.bool_]:
        return self.charged >= 0


class Selecting:
    """A context manager. With `looks_ahead`: `observe` every batch of rows that pass and then `decide`; then, and
    otherwise at once, `select` every batch, in the same order.

    A part of an input observes its rows and `save`s them; `decide` with the folders of all parts, in the order of the
    input, chooses among all, and this part's rows are then selected from its own place on.
    """

    def __init__(self, asked: Selections, fields: Fields) -> None:
        self.chain: list[Selection] = asked.chain()
        self.asked = asked
        needs = frozenset[str]().union(*(selection.needs for selection in self.chain))
        self._features = Features(needs, asked.seed, fields)
        self._fields = fields
        self._table = RowTable()
        self._decided: Chosen | None = None
        self._at = self._end = 0
        self._seen = np.zeros(len(self.chain), np.int64)
        self._left_out = np.zeros(len(self.chain), np.int64)
        self.held_out = 0
        self.replaced = 0  # rows that had a split already
        self.checksum = Checksum()  # of what is held out

    @property
    def is_by_row(self) -> bool:
        """Whether each row is chosen by itself, whatever the others are."""
        return all(selection.reach == "row" for selection in self.chain)

    @property
    def looks_ahead(self) -> bool:
        return any(selection.reach == "all" for selection in self.chain)

    def __enter__(self) -> Selecting:
        return self

    def __exit__(self, *error: Any) -> None:
        self._table.close()

    def observe(self, batch: Batch) -> None:
        """Rows that all rules have let pass, with ids."""
        self._table.append(self._features.of(batch))

    def save(self, folder: Path) -> None:
        """Keep what was observed. Raises UsageError where something stands there already."""
        self._table.save(folder, self._features.names, self.asked.fingerprint())

    def decide(self, parts: Sequence[Path] | None = None, part: int = 0) -> None:
        """`parts` are folders that were saved, all in the order of the input, and `part` is the one to be selected
        from; without, it is what was observed here."""
        table, names, numbers = self._table, self._features.names, [self._table.rows]
        if parts is not None:
            table, names, numbers = RowTable.of(parts, self.asked.fingerprint())
        decided = Chosen(np.full(table.rows, _KEPT, np.int8), np.zeros(table.rows, np.int8))
        for place, selection in enumerate(self.chain):
            if selection.reach == "all":
                selection.decide(lambda: (piece for _, piece in _standing(table, decided)), names)
            for rows, piece in _standing(table, decided):
                _apply(place, selection, rows, piece, decided)
        self._decided = decided
        self._at = sum(numbers[:part])
        self._end = self._at + numbers[part]

    def select(self, batch: Batch) -> Chosen:
        """What comes of the next rows that pass. Raises InputError when there are more than in the first pass."""
        if self._decided is None:
            features = self._features.of(batch)
            chosen = Chosen(np.full(len(batch), _KEPT, np.int8), np.zeros(len(batch), np.int8))
            for place, selection in enumerate(self.chain):
                standing = np.flatnonzero(chosen.kept)
                _apply(place, selection, standing, features[standing], chosen)
        else:
            rows = slice(self._at, self._at + len(batch))
            self._at += len(batch)
            if self._at > self._end:
                raise InputError("the file has changed since it was read first", file=batch.file)
            chosen = Chosen(self._decided.charged[rows], self._decided.sides[rows])
        self._count(chosen)
        return chosen

    def pass_on(
        self,
        passed: Batch,
        came: Batch,
        rows: Totals,
        texts: Totals,
        rejects: RejectsWriter | None,
        held_out: Writer | None,
    ) -> Batch:
        """What goes on of the rows that passed, which `rows` and `texts` have counted as kept: those that are left out
        go to `rejects` as they `came` in, those held out to `held_out`."""
        if not self.chain:
            return passed
        chosen = self.select(passed)
        numbers = self._fields.numbers(passed)
        for totals, of_row in ((rows, np.ones(len(passed), np.int64)), (texts, numbers)):
            dropped, held = int(of_row[chosen.dropped].sum()), int(of_row[chosen.held_out].sum())
            totals.kept -= dropped + held
            totals.dropped += dropped
            totals.held_out += held
        if rejects is not None and chosen.dropped.any():
            left_out = [self.chain[place] for place in chosen.charged[chosen.dropped].tolist()]
            as_it_came = came.take(pl.Series(chosen.dropped))
            rejects.write(as_it_came, [s.name for s in left_out], [s.reason for s in left_out])
        if held_out is not None:
            test = passed.take(pl.Series(chosen.held_out))
            self.checksum.add(test.frame["image_id"], self._fields.contents(test))
            held_out.write(test)
        kept = passed.take(pl.Series(chosen.kept))
        if self.asked.split is None:
            return kept
        return self._with_sides(kept, chosen.sides[chosen.kept], self.asked.split.names)

    def counts(self) -> dict[str, Any]:
        """As JSON, for `add`: of selections that choose row by row."""
        return {"seen": self._seen.tolist(), "left_out": self._left_out.tolist()}

    def add(self, counts: dict[str, Any]) -> None:
        """What another has chosen from other rows."""
        self._seen += np.array(counts["seen"], np.int64)
        self._left_out += np.array(counts["left_out"], np.int64)

    def _count(self, chosen: Chosen) -> None:
        here = np.bincount(chosen.charged[chosen.charged >= 0], minlength=len(self.chain))
        held_out = int(chosen.held_out.sum())
        standing = len(chosen.charged)
        for place, selection in enumerate(self.chain):
            self._seen[place] += standing
            standing -= int(here[place]) + (held_out if selection.name == "hold-out" else 0)
        self._left_out += here
        self.held_out += held_out

    def _with_sides(self, batch: Batch, sides: NDArray[np.int8], names: list[str]) -> Batch:
        self.replaced += len(batch) - batch.column(COLUMN).null_count()
        written = pl.Series(COLUMN, np.array(names)[sides], pl.String())
        if isinstance(batch.rest, pl.DataFrame):
            rest: Any = batch.rest.with_columns(written) if batch.rest.width else written.to_frame()
        else:
            rest = [{**row, COLUMN: side} for row, side in zip(batch.rest, written, strict=True)]
        return replace(batch, rest=rest)

    def finish(self) -> None:
        """After the last batch. Raises InputError where the second pass had fewer rows."""
        if self._decided is not None and self._at != self._end:
            raise InputError(f"the input has changed: {self._end - self._at:,} rows that passed are gone")

    def tallies(self) -> list[dict[str, Any]]:
        """The lines of the report's `rules`."""
        found = []
        for selection, seen, left_out in zip(
            self.chain, self._seen.tolist(), self._left_out.tolist(), strict=True
        ):
            held = {"held_out": self.held_out} if selection.name == "hold-out" else {}
            kept = seen - left_out - self.held_out if held else seen - left_out
            line = {"rule": selection.name, "scope": "selection", "seen": seen, "kept": kept}
            found.append(line | {"dropped": left_out} | held)
        return found

    def told(self) -> dict[str, Any]:
        """The report's `selections`."""
        found: dict[str, Any] = {}
        for selection, line in zip(self.chain, self.tallies(), strict=True):
            counts = {name: number for name, number in line.items() if name not in ("rule", "scope")}
            found[selection.name] = {**counts, **selection.told()}
            if selection.name == "hold-out":
                found[selection.name]["checksum"] = self.checksum.hex()
            if selection.name == "split":
                found[selection.name]["replaced"] = self.replaced
            if not isinstance(selection, First | FirstImages):
                found[selection.name]["seed"] = self.asked.seed
        return found


def _apply(
    place: int, selection: Selection, rows: NDArray[np.int64], features: pl.DataFrame, chosen: Chosen
) -> None:
    """What one selection says of the next rows that stand; `rows` are their places in `chosen`."""
    verdicts = selection.select(features)
    chosen.charged[rows[verdicts == LEFT_OUT]] = place
    chosen.charged[rows[verdicts == HELD_OUT]] = _HELD_OUT
    if isinstance(selection, RatioSplit):
        chosen.sides[rows] = verdicts


def _standing(table: RowTable, chosen: Chosen) -> Iterator[tuple[NDArray[np.int64], pl.DataFrame]]:
    """The rows that no selection has taken away so far: their places, and their features."""
    start = 0
    for piece in table.pieces():
        stands = np.flatnonzero(chosen.charged[start : start + piece.height] == _KEPT)
        yield start + stands, piece if len(stands) == piece.height else piece[stands]
        start += piece.height

"""Random subsets: N rows or x % of them, of all or of each value of a column.

ALIGN takes 10 %, 3M, 6M and 12M rows; AltCLIP 7M of each language. The rows with the lowest draws are taken, so the
smaller of two samples with one seed is a part of the larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.amount import Amount
from vlcli.curation.chance import Codes, within
from vlcli.curation.features import Names, draw, key
from vlcli.curation.ranking import Ranking
from vlcli.curation.selection import LEFT_OUT, Decided, Reach, Selection, Verdicts, Walk, taken
from vlcli.errors import UsageError

DRAW = draw("sample")
SHOWN = 50  # values of a column that the report tells of


class Share(Selection):
    """Each row by itself: the share is what comes out of many rows, and no row needs to know another."""

    name = "sample"
    reach: Reach = "row"
    needs = frozenset({DRAW})

    def __init__(self, amount: Amount) -> None:
        assert amount.share is not None
        self._amount, self._share = amount, amount.share
        self.reason = f"not in the random {amount}"

    def select(self, rows: pl.DataFrame) -> Verdicts:
        return taken(within(rows[DRAW].to_numpy(), self._share))

    def told(self) -> dict[str, Any]:
        return {"asked": str(self._amount)}


class Sample(Selection):
    """Exactly N rows, or N (or x %, to the nearest row) of each value of a column; all where there are fewer.

    Rows without a value in the column are left out.
    """

    name = "sample"
    reach: Reach = "all"

    def __init__(self, amount: Amount, column: str | None = None, **sizes: Any) -> None:
        """`sizes` are those of `Ranking`."""
        self._amount, self._column, self._sizes = amount, column, sizes
        self.needs = frozenset({DRAW} if column is None else {DRAW, key(column)})
        of_each = "" if column is None else f" of each {column}"
        self.reason = f"not in the random {amount}{of_each}"
        self._told: dict[str, Any] = {}

    def decide(self, walk: Walk, names: Names) -> None:
        with Ranking(most=self._amount.number, **self._sizes) as ranking:
            verdicts = self._draw(walk, names, ranking)
        self._decided = Decided(verdicts)

    def _draw(self, walk: Walk, names: Names, ranking: Ranking) -> Verdicts:
        seen = 0
        for piece in walk():
            strata, given = strata_of(piece, self._column)
            rows = np.arange(seen, seen + piece.height)[given]
            ranking.add(piece[DRAW].to_numpy()[given], strata[given], rows)
            seen += piece.height
        if self._column is not None and seen and not len(ranking.strata):
            raise UsageError(f"--per-key {self._column}: no row has a value in {self._column!r}")
        wanted = np.array([self._amount.of(size) for size in ranking.sizes.tolist()], np.int64)
        self._told = self._tell(ranking, wanted, names)
        return chosen(ranking, wanted, seen)

    def _tell(self, ranking: Ranking, wanted: np.ndarray, names: Names) -> dict[str, Any]:
        found: dict[str, Any] = {"asked": str(self._amount)}
        if self._amount.number is not None:
            empty = self._column is None and not len(wanted)
            found["short"] = int((wanted < self._amount.number).sum()) + empty
        if self._column is None:
            return found
        return {**found, "values": len(wanted)} | by_value(
            names, self._column, ranking.strata, ranking.sizes, wanted
        )

    def select(self, rows: pl.DataFrame) -> Verdicts:
        return self._decided.next(rows.height)

    def told(self) -> dict[str, Any]:
        return self._told


def strata_of(piece: pl.DataFrame, column: str | None) -> tuple[Codes, np.ndarray]:
    """(n,) what stands for the value of the column, and whether there is one; without a column all have one."""
    if column is None:
        return np.zeros(piece.height, np.uint64), np.ones(piece.height, np.bool_)
    values = piece[key(column)]
    return values.fill_null(0).to_numpy(), values.is_not_null().to_numpy()


def chosen(ranking: Ranking, wanted: np.ndarray, rows: int) -> Verdicts:
    """(rows,) the `wanted` lowest of each stratum are taken."""
    found = np.full(rows, LEFT_OUT, np.int8)
    for place, rank, row in ranking:
        found[row[rank < wanted[place]]] = 0
    return found


def by_value(names: Names, column: str, codes: Codes, sizes: np.ndarray, taken: np.ndarray) -> dict[str, Any]:
    """What was there and what was taken of each value, the most frequent first, where they are few."""
    lines = [
        {"value": names.name(column, code), "of": size, "taken": number}
        for code, size, number in zip(codes.tolist(), sizes.tolist(), taken.tolist(), strict=True)
    ]
    if len(lines) > SHOWN or any(line["value"] is None for line in lines):
        return {}
    return {"by_value": sorted(lines, key=lambda line: (-line["of"], line["value"]))}

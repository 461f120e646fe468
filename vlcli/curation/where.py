"""`--where SQL`: a polars SQL expression over any column of the rows, known to vlcli or not."""

from __future__ import annotations

import itertools
import json
from typing import Any

import polars as pl

from vlcli.curation.rule import Rule
from vlcli.errors import UsageError
from vlcli.records.batch import COLUMNS, Batch


class Where:
    """One condition on rows; remembers which of its columns the input has had, and their types.

    The rows of a JSONL input need not all have a column, so whether it exists is known at the end: `finish`.
    """

    def __init__(self, sql: str) -> None:
        self.sql = sql
        try:
            self._expression = pl.sql_expr(sql)
        except Exception as error:  # polars' SQL errors and its panics on odd input have no common class
            raise UsageError(f"--where {sql!r}: {error}") from None
        if _looks_beyond_the_row(json.loads(self._expression.meta.serialize(format="json"))):
            raise UsageError(
                f"--where {sql!r} does not judge each row by itself",
                remedy="aggregates, windows and subqueries have no meaning on a stream",
            )
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(self._expression.meta.root_names()))
        self._types: dict[str, pl.DataType] = {}
        self._rows = 0

    def rule(self) -> Rule:
        return Rule("where", "row", self.columns, self._expression, f"not: {self.sql}")

    def view(self, batch: Batch) -> pl.DataFrame:
        """The columns that the condition reads; `text` is a string where all rows of the batch have one."""
        series: dict[str, pl.Series] = {}
        for name in self.columns:
            self._look_for(name, batch)
            series[name] = self._column(name, batch)
        self._rows += len(batch)
        return pl.DataFrame(series) if series else pl.DataFrame({"": [None] * len(batch)})

    def judge(self, rows: pl.DataFrame) -> pl.Series:
        """True where the condition holds; null (unknown) counts as no."""
        verdict = self._evaluate(rows)
        if verdict.dtype == pl.Null():
            verdict = verdict.cast(pl.Boolean())
        if verdict.dtype != pl.Boolean():
            raise UsageError(f"--where {self.sql!r} gives {verdict.dtype}, not true or false")
        verdict = verdict.fill_null(False)
        return verdict if len(verdict) == rows.height else verdict.new_from_index(0, rows.height)

    def _evaluate(self, rows: pl.DataFrame) -> pl.Series:
        # A column without a value so far has no type, and string functions refuse that.
        untyped = [name for name in rows.columns if rows[name].dtype == pl.Null()]
        first: Exception | None = None
        for types in itertools.product((pl.Null(), pl.String()), repeat=min(len(untyped), 4)):
            try:
                casts = [pl.col(name).cast(dtype) for name, dtype in zip(untyped, types, strict=False)]
                return rows.with_columns(casts).select(keep=self._expression)["keep"]
            except Exception as error:
                first = first or error
        raise UsageError(f"--where {self.sql!r}: {' '.join(str(first).split())}")

    def finish(self) -> None:
        """After the last row: a column that no row had is a mistake in the condition."""
        missing = [name for name in self.columns if name not in self._types]
        if missing and self._rows:
            raise UsageError(f"--where {self.sql!r}: no row has a column {missing[0]!r}")

    @property
    def met(self) -> tuple[int, dict[str, pl.DataType]]:
        """How many rows were seen, and which columns with which types."""
        return self._rows, self._types

    def absorb(self, met: tuple[int, dict[str, pl.DataType]]) -> None:
        """What another has met in other rows."""
        self._rows += met[0]
        self._types = {**met[1], **self._types}

    def _look_for(self, name: str, batch: Batch) -> None:
        if name in COLUMNS or not isinstance(batch.rest, pl.DataFrame) or name in batch.rest.columns:
            return
        names = ", ".join([*COLUMNS, *batch.rest.columns])
        raise UsageError(
            f"--where {self.sql!r}: {batch.file} has no column {name!r}", remedy=f"it has {names}"
        )

    def _column(self, name: str, batch: Batch) -> pl.Series:
        if name in COLUMNS:
            column = batch.frame[name]
            if name == "text" and batch.frame["text_is_scalar"].fill_null(False).all():
                column = column.list.first()
            self._types[name] = column.dtype
            return column
        if isinstance(batch.rest, pl.DataFrame):
            column = batch.rest[name]
            self._types[name] = column.dtype
            return column
        column = pl.Series(name, batch.values(name), strict=False)
        if column.dtype != pl.Null():
            self._types[name] = column.dtype
            return column
        if any(name in row for row in batch.rest):
            self._types.setdefault(name, pl.Null())
        return column.cast(self._types.get(name, pl.Null()))  # no value in this batch: the type it had before


# Nodes of polars' expression tree whose value at one row depends on other rows.
_BEYOND = {"Agg", "Over", "Rolling", "SubPlan", "Explode", "Filter", "SortBy", "Sort", "Gather", "Slice"}
_BEYOND_FUNCTIONS = {
    "Rank",
    "Shift",
    "ShiftAndFill",
    "Range",
    "Diff",
    "Random",
    "CumSum",
    "CumCount",
    "CumMin",
    "CumMax",
}


def _looks_beyond_the_row(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_looks_beyond_the_row, node))
    if not isinstance(node, dict):
        return node == "Len"
    for kind, value in node.items():
        if kind in _BEYOND:
            return True
        if kind == "function":  # its own name space: the Slice of a string is one of these
            names = {value} if isinstance(value, str) else set(value)
            if names & _BEYOND_FUNCTIONS:
                return True
        elif kind not in ("Literal", "Column") and _looks_beyond_the_row(value):
            return True
    return False

"""A table of a report: models in rows, numbers with what is known of their spread."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

WITH = ("checkpoint", "similarity", "prompts")  # what a row says beside its model


@dataclass(frozen=True)
class Number:
    """One value with its 95 % interval or a deviation that was measured with it, or several seeds' values."""

    values: tuple[float, ...]
    bounds: tuple[float, float] | None = None
    spread: float | None = None

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Of a sample; of a single value what it came with."""
        if len(self.values) < 2:
            return self.spread
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def __str__(self) -> str:
        if self.deviation is not None:
            return f"{self.mean:.1f} ± {self.deviation:.1f}"
        return f"{self.mean:.1f}" + (f" [{self.bounds[0]:.1f}, {self.bounds[1]:.1f}]" if self.bounds else "")


@dataclass(frozen=True)
class Row:
    """A model, with what its numbers were measured, and a number, or none, for each column."""

    model: str
    said: tuple[str, ...]  # as WITH
    numbers: list[Number | None]


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    note: str = ""
    lower: frozenset[int] = frozenset()  # columns in which less is better

    @cached_property
    def best(self) -> list[float | None]:
        """The best value of each column, as it is shown; None where there are not two to choose from."""
        found: list[float | None] = []
        for column in range(len(self.columns)):
            values = [round(number.mean, 1) for row in self.rows if (number := row.numbers[column])]
            first = min if column in self.lower else max
            found.append(first(values) if len(values) > 1 else None)
        return found

    def is_best(self, row: Row, column: int) -> bool:
        number = row.numbers[column]
        return number is not None and round(number.mean, 1) == self.best[column]

"""What a selection is: it chooses among the rows that all rules have let pass.

A rule judges a row by what it is; a selection takes so many of them, and what it says of one row may depend on all.
It sees rows as numbers (`features.py`), in the order of the input, after the selections before it have chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.features import Names

# What is said of a row: taken (0, or the number of its side of a split), or one of these.
LEFT_OUT, HELD_OUT = -1, -2
Verdicts = NDArray[np.int8]
Walk = Callable[[], Iterator[pl.DataFrame]]  # all rows that stand before a selection, as often as it asks

# What must be known before a row can be chosen: the row alone, those before it, or all.
Reach = Literal["row", "before", "all"]


class Selection(ABC):
    """`decide` is asked once, and only where the reach is "all"; then `select` for all rows, in order, once each."""

    name: str  # its option without the dashes: the rule in rejects and reports
    reason: str  # why a row was left out
    reach: Reach
    needs: frozenset[str]  # the features that it reads

    def decide(self, walk: Walk, names: Names) -> None:  # noqa: B027 (most have nothing to decide)
        """Raises UsageError where what was asked for cannot be had from these rows."""

    @abstractmethod
    def select(self, rows: pl.DataFrame) -> Verdicts:
        """(n,) of the next rows."""

    def told(self) -> dict[str, Any]:
        """For the report, beside its counts of rows."""
        return {}


class Decided:
    """Verdicts on all rows, told in order."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts, self._at = verdicts, 0

    def next(self, number: int) -> Verdicts:
        found = self._verdicts[self._at : self._at + number]
        self._at += number
        assert len(found) == number, "more rows are selected than were walked over"
        return found


def taken(keep: NDArray[np.bool_]) -> Verdicts:
    """(n,) 0 where `keep` is true, LEFT_OUT elsewhere."""
    return np.where(keep, 0, LEFT_OUT).astype(np.int8)

"""At most so many rows of one query, the first in input order (Wukong §3: 1,000)."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule
from vlcli.records.digest import key64
from vlcli.records.occurrences import Keys, Occurrences

RANK = "query_rank"  # 1 for the first row of its query, null for a row without one


def max_per_query(bound: Bound) -> Rule:
    """Keeps a row whose rank among the rows of its query is within the bound, and rows without one."""
    keep = pl.col(RANK).is_null() | bound.holds(pl.col(RANK))
    return Rule("max-per-query", "corpus", ("query", RANK), keep, f"rows of this query are not {bound}")


class QueryRanks:
    """Numbers the rows of each query in input order, in bounded memory; a context manager.

    Queries are told apart by 64 bits of XXH3: among a million of them two are taken for one with a chance
    of 3e-8.
    """

    def __init__(self) -> None:
        self._seen = Occurrences()

    def number(self, queries: pl.Series) -> pl.Series:
        """1 for the first row of its query, 2 for the next, …; null for a row without one (null or empty)."""
        return ranks(queries, self.answer(query_keys(queries)))

    def answer(self, keys: Keys) -> NDArray[np.int64]:
        """How many rows with each key came before. Batches must be asked for in input order."""
        return self._seen.count(keys)

    def __enter__(self) -> QueryRanks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seen.close()


def _given(queries: pl.Series) -> pl.Series:
    return queries.is_not_null() & (queries != "")


def query_keys(queries: pl.Series) -> Keys:
    """What tells apart the queries of the rows that have one."""
    return key64(queries.filter(_given(queries)))


def ranks(queries: pl.Series, before: NDArray[np.int64]) -> pl.Series:
    """From how many rows of its query came before each row that has one: `QueryRanks.number`."""
    found = pl.repeat(None, len(queries), dtype=pl.Int64(), eager=True)
    return found.scatter(_given(queries).arg_true(), before + 1).alias(RANK)

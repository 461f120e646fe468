"""At most so many rows of one query, the first in input order (Wukong §3: 1,000)."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule
from vlcli.records.digest import key64
from vlcli.records.occurrences import Keys

RANK = "query_rank"  # 1 for the first row of its query, null for a row without one


def max_per_query(bound: Bound) -> Rule:
    """Keeps a row whose rank among the rows of its query is within the bound, and rows without one."""
    keep = pl.col(RANK).is_null() | bound.holds(pl.col(RANK))
    return Rule("max-per-query", "corpus", ("query", RANK), keep, f"rows of this query are not {bound}")


def _given(queries: pl.Series) -> pl.Series:
    return queries.is_not_null() & (queries != "")


def query_keys(queries: pl.Series) -> Keys:
    """What tells apart the queries of the rows that have one: 64 bits of XXH3.

    Among a million of them two are taken for one with a chance of 3e-8.
    """
    return key64(queries.filter(_given(queries)))


def ranks(queries: pl.Series, before: NDArray[np.int64]) -> pl.Series:
    """1 for the first row of its query, 2 for the next, …, from how many came before each row that has a query; null
    for a row without one (null or empty)."""
    found = pl.repeat(None, len(queries), dtype=pl.Int64(), eager=True)
    return found.scatter(_given(queries).arg_true(), before + 1).alias(RANK)

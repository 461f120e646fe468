"""Selection by click-through rate: of the images shown for a query, those that users clicked more (ZERO §2.1).

The paper gives no threshold (D8), so none is applied unless it is asked for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.numbers import CTR, number_column
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.errors import UsageError
from vlcli.records.batch import Batch

_TOP = "is_of_top_ctr"


def min_ctr(bound: Bound) -> Rule:
    """Keeps a row whose rate is within the bound; one without a rate goes."""
    return Rule("min-ctr", "row", (CTR,), bound.holds(pl.col(CTR)), f"click-through rate is not {bound}")


def ctr_top_k(bound: Bound) -> Rule:
    """Keeps the rows of each query with the highest rates, and rows without a query.

    Of equal rates the first in input order is the higher; a row without a rate comes after all that have one.
    """
    return Rule(
        "ctr-top-k",
        "corpus",
        (_TOP,),
        pl.col(_TOP),
        f"rank by click-through rate among the rows of this query is not {bound}",
        survey=lambda: TopRates(bound),
    )


class TopRates(Survey):
    """Which rows are beyond the bound, one bit a row: rows go to files by a hash of their query, and each is ranked
    alone, holding no more rows of a query than are kept."""

    def __init__(self, bound: Bound, *, buckets: int = 64, flush_rows: int = 1 << 19) -> None:
        self._bound, self._buckets, self._flush_rows = bound, buckets, flush_rows
        self._folder = tempfile.TemporaryDirectory(prefix="vlcli-ctr-")
        self._held: list[pl.DataFrame] = []
        self._held_rows = self._rows = self._asked = 0
        self._has_rates = False
        self._files: dict[int, list[Path]] = {}
        self._beyond: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def add(self, batch: Batch, texts: pl.DataFrame, standing: NDArray[np.bool_]) -> None:
        rates = number_column(batch, CTR)
        frame = pl.DataFrame(
            {"query": batch.frame["query"], "rate": rates, "row": np.arange(len(batch)) + self._rows}
        )
        self._rows += len(batch)
        frame = frame.filter(pl.Series(standing) & pl.col("query").is_not_null() & (pl.col("query") != ""))
        self._has_rates |= frame["rate"].null_count() < frame.height
        self._held.append(frame)
        self._held_rows += frame.height
        if self._held_rows >= self._flush_rows:
            self._flush()

    def _flush(self) -> None:
        frame = pl.concat(self._held).with_columns((pl.col("query").hash() % self._buckets).alias("b"))
        self._held, self._held_rows = [], 0
        for (bucket,), part in frame.partition_by("b", as_dict=True, include_key=False).items():
            paths = self._files.setdefault(int(bucket), [])
            paths.append(Path(self._folder.name) / f"{bucket}-{len(paths)}")
            part.write_ipc(paths[-1], compression="lz4")

    def finish(self) -> None:
        if self._held:
            self._flush()
        if self._files and not self._has_rates:
            raise UsageError(f"--ctr-top-k: no row has a column {CTR!r}, nor 'clicks' and 'impressions'")
        if self._rows:
            path = Path(self._folder.name) / "beyond"
            self._beyond = np.memmap(path, np.uint8, "w+", shape=(self._rows // 8 + 1,))
        for paths in self._files.values():
            best = pl.DataFrame()
            for path in paths:
                both = pl.concat([best, pl.read_ipc(path)]) if best.height else pl.read_ipc(path)
                both = both.sort(["rate", "row"], descending=[True, False], nulls_last=True)
                rank = pl.int_range(1, pl.len() + 1).over("query")
                both = both.with_columns(within=self._bound.holds(rank))
                self._mark(both.filter(~pl.col("within"))["row"].to_numpy())
                best = both.filter("within").drop("within")
                path.unlink()

    def _mark(self, rows: NDArray[Any]) -> None:
        np.bitwise_or.at(self._beyond, rows >> 3, (1 << (rows & 7)).astype(np.uint8))

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        """Batches are asked for once each, in input order."""
        rows = np.arange(self._asked, self._asked + len(batch))
        self._asked += len(batch)
        return pl.Series((self._beyond[rows >> 3] >> (rows & 7)) & 1 == 0)

    def rewind(self) -> None:
        self._asked = 0

    def close(self) -> None:
        self._beyond = np.zeros(0, np.uint8)
        self._folder.cleanup()

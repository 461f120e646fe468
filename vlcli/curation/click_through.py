"""Selection by click-through rate: of the images shown for a query, those that users clicked more (ZERO §2.1).

The paper gives no threshold (D8), so none is applied unless it is asked for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.numbers import CTR, number_column
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.errors import UsageError
from vlcli.records.batch import Batch
from vlcli.records.digest import key64

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
    """Which rows are beyond the bound, 8 bytes each on disk: rows go to files by a hash of their query, and those of
    one hash are ranked alone, holding no more rows of a query than are kept."""

    def __init__(self, bound: Bound, *, buckets: int = 64, flush_rows: int = 1 << 19) -> None:
        self._bound, self._buckets, self._flush_rows = bound, buckets, flush_rows
        self._folder = tempfile.TemporaryDirectory(prefix="vlcli-ctr-")
        self._held: list[pl.DataFrame] = []
        self._held_rows = 0
        self._files: list[Path] = []
        self._beyond: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, batch: Batch, texts: pl.DataFrame, standing: NDArray[np.bool_]) -> None:
        rates = number_column(batch, CTR)
        frame = pl.DataFrame({"query": batch.frame["query"], "rate": rates, "row": batch.order()})
        frame = frame.filter(pl.Series(standing) & pl.col("query").is_not_null() & (pl.col("query") != ""))
        self._held.append(frame)
        self._held_rows += frame.height
        if self._held_rows >= self._flush_rows:
            self._flush()

    def _flush(self) -> None:
        frame = pl.concat(self._held)
        bucket = pl.Series("b", key64(frame["query"]) % self._buckets)
        self._held, self._held_rows = [], 0
        for (number,), part in (
            frame.with_columns(bucket).partition_by("b", as_dict=True, include_key=False).items()
        ):
            self._files.append(Path(self._folder.name) / f"{number}-{len(self._files)}.arrow")
            part.write_ipc(self._files[-1], compression="lz4")

    def save(self, folder: Path) -> None:
        if self._held:
            self._flush()
        for place, path in enumerate(self._files):
            shutil.move(path, folder / f"{path.name.partition('-')[0]}-{place}.arrow")

    def merge(self, folders: Sequence[Path]) -> None:
        self._files += [path for folder in folders for path in sorted(folder.glob("*.arrow"))]

    def finish(self) -> None:
        if self._held:
            self._flush()
        by_bucket: dict[int, list[Path]] = {}
        for path in self._files:
            by_bucket.setdefault(int(path.name.partition("-")[0]), []).append(path)
        has_rates, path = False, Path(self._folder.name) / "beyond"
        with path.open("wb") as beyond:
            for paths in by_bucket.values():
                best = pl.DataFrame()
                for part in map(pl.read_ipc, paths):
                    has_rates |= part["rate"].null_count() < part.height
                    both = pl.concat([best, part]) if best.height else part
                    both = both.sort(["rate", "row"], descending=[True, False], nulls_last=True)
                    rank = pl.int_range(1, pl.len() + 1).over("query")
                    both = both.with_columns(within=self._bound.holds(rank))
                    both.filter(~pl.col("within"))["row"].to_numpy().tofile(beyond)
                    best = both.filter("within").drop("within")
        if by_bucket and not has_rates:
            raise UsageError(f"--ctr-top-k: no row has a column {CTR!r}, nor 'clicks' and 'impressions'")
        if path.stat().st_size:
            rows = np.memmap(path, np.int64, "r+")
            rows.sort()
            rows.flush()
        self.thaw(path.parent)

    def freeze(self, folder: Path) -> None:
        shutil.copyfile(Path(self._folder.name) / "beyond", folder / "beyond")

    def thaw(self, folder: Path) -> None:
        if (folder / "beyond").stat().st_size:
            self._beyond = np.memmap(folder / "beyond", np.int64, "r")

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        rows = batch.order()
        ends = np.searchsorted(self._beyond, [rows[0], rows[-1] + 1]) if len(rows) else [0, 0]
        return pl.Series(~np.isin(rows, self._beyond[ends[0] : ends[1]], assume_unique=True))

    def close(self) -> None:
        self._beyond = np.zeros(0, np.int64)
        self._folder.cleanup()

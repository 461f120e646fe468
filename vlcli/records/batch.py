"""A batch of pairs: the columns vlcli understands as one typed frame, everything else carried beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.records.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

# Columns of design §2 that rules, shards and loaders read. Every frame has all of them, null where a row has
# none.
COLUMNS: dict[str, Any] = {
    "id": pl.String(),
    "image": pl.String(),  # a reference: path, file.parquet#ROW, shard.tar#MEMBER, data:, URL
    "image_id": pl.String(),
    "text": pl.List(pl.String()),
    "text_candidates": pl.List(pl.String()),
    "query": pl.String(),
    "width": pl.Int64(),
    "height": pl.Int64(),
}
# Columns of the frame that are about the row and never written out as they are.
BOOKKEEPING: dict[str, Any] = {
    "line": pl.Int64(),  # 1-based line of a text file, 0-based row of Parquet and Arrow
    "text_is_scalar": pl.Boolean(),  # `text` came as a string and goes out as one
    "image_bytes": pl.Binary(),  # embedded pixels, when the source has them and the reader was asked for them
}

_LEVEL = pl.CompatLevel.oldest()


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of one input.

    `frame` has exactly COLUMNS and BOOKKEEPING; `rest` holds the other columns row by row (dicts of a JSONL
    input, perhaps as `Objects`) or as a frame (Parquet, Arrow) and passes through untouched. `file` names the
    source in messages.
    """

    frame: pl.DataFrame
    rest: list[dict[str, Any]] | Objects | pl.DataFrame
    file: str
    text_lines: bool  # True: `line` counts lines of text; False: rows of a columnar file
    folder: str = ""  # what was put before relative references to make them resolvable; "" = nothing
    folder_label: str = ""  # that folder as identities see it: relative to what all inputs have in common
    lineage: tuple[
        dict[str, Any], ...
    ] = ()  # the steps recorded in the source, oldest first (records/lineage.py)

    source: int = 0  # number of the input among all

    def __len__(self) -> int:
        return self.frame.height

    def __reduce__(self) -> Any:
        # As it travels between processes: Arrow's buffers need no copy, and columns without a value no buffer.
        frame, rest = self.frame, self.rest
        given = [name for name in frame.columns if frame[name].null_count() < len(self)]
        sent = rest.to_arrow(compat_level=_LEVEL) if isinstance(rest, pl.DataFrame) else rest
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("frame", "rest")}
        return _arrived, (len(self), frame.select(given).to_arrow(compat_level=_LEVEL), sent, others)

    def order(self) -> NDArray[np.int64]:
        """(rows,) a number for each row of all inputs, ascending in input order."""
        return (self.source << 44) + self.frame["line"].to_numpy()

    def take(self, keep: pl.Series) -> Batch:
        """The rows for which the boolean series `keep` is true."""
        if isinstance(self.rest, pl.DataFrame | Objects):
            rest: Any = self.rest.filter(keep)
        else:
            rest = [row for row, kept in zip(self.rest, keep, strict=True) if kept]
        return replace(self, frame=self.frame.filter(keep), rest=rest)

    def slice(self, offset: int, length: int) -> Batch:
        rest = (
            self.rest.slice(offset, length)
            if isinstance(self.rest, pl.DataFrame)
            else self.rest[offset : offset + length]
        )
        return replace(self, frame=self.frame.slice(offset, length), rest=rest)

    def with_columns(self, *columns: pl.Series) -> Batch:
        """The same rows with these columns of the frame replaced (named as in COLUMNS and BOOKKEEPING)."""
        schema = COLUMNS | BOOKKEEPING
        return replace(self, frame=self.frame.with_columns([c.cast(schema[c.name]) for c in columns]))

    def with_other(self, name: str, values: list[Any], dtype: Any) -> Batch:
        """The batch with a further column at its end, in place of one of that name."""
        if not isinstance(self.rest, pl.DataFrame):
            rest = [
                {**{k: v for k, v in row.items() if k != name}, name: value}
                for row, value in zip(self.rest, values, strict=True)
            ]
            return replace(self, rest=rest)
        column, others = pl.Series(name, values, dtype), self.rest.drop(name, strict=False)
        return replace(self, rest=others.with_columns(column) if others.width else column.to_frame())

    def column(self, name: str) -> pl.Series:
        """Any column, known or not; all null when no row has it."""
        if name in self.frame.columns:
            return self.frame[name]
        if isinstance(self.rest, pl.DataFrame):
            return self.rest[name] if name in self.rest.columns else pl.Series(name, [None] * len(self))
        return pl.Series(name, self.values(name), strict=False)

    def values(self, name: str) -> list[Any]:
        """The values of a column that is not known; None where a row lacks it."""
        if isinstance(self.rest, pl.DataFrame):
            return self.column(name).to_list()
        if isinstance(self.rest, Objects):
            return self.rest.values(name)
        return [row.get(name) for row in self.rest]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows as plain objects, known columns first, nulls of known columns left out."""
        known = self.frame.select(list(COLUMNS)).iter_rows(named=True)
        scalar = self.frame["text_is_scalar"]
        others = self.rest.iter_rows(named=True) if isinstance(self.rest, pl.DataFrame) else self.rest
        for row, one, other in zip(known, scalar, others, strict=True):
            row = {name: value for name, value in row.items() if value is not None}
            if one and "text" in row:
                row["text"] = row["text"][0] if row["text"] else ""
            yield {**row, **other}


def _arrived(height: int, known: pa.Table, rest: Any, others: dict[str, Any]) -> Batch:
    columns = dict(zip(known.column_names, known.columns, strict=True))
    frame = pl.DataFrame(
        [
            pl.Series(name, pl.from_arrow(columns[name])).cast(dtype)
            if name in columns
            else pl.repeat(None, height, dtype=dtype, eager=True).alias(name)
            for name, dtype in (COLUMNS | BOOKKEEPING).items()
        ]
    )
    if not isinstance(rest, list | Objects):
        rest = pl.DataFrame(rest) if rest.num_columns else pl.DataFrame(height=height)
    return Batch(frame, rest, **others)

"""Which texts of a row are judged, one a line, and how those that are left go back to where they stood.

ZERO's rows have a title, a content and an image query, cleaned field by field (App. A; D9: a text that fails goes, and
the row with the last of them).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.text_fields import INSTEAD, field_texts
from vlcli.errors import UsageError
from vlcli.records.batch import COLUMNS, Batch


def parse_fields(value: str, option: str) -> tuple[str, ...]:
    """`title,content,image_query` → the names; UsageError for one that is empty, twice there or no text."""
    names = tuple(name.strip() for name in value.split(","))
    for name in names:
        if not name or names.count(name) > 1:
            raise UsageError(f"{option} {value!r}: {name!r} is {'there twice' if name else 'no field'}")
        if name in COLUMNS and name != "text":
            raise UsageError(f"{option} {value!r}: {name} is not a text that is judged")
    return names


class Fields:
    """`names` are judged where a row has them; without any, `text`, and where that is absent ZERO's three."""

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        self._names = names
        self._others = INSTEAD if names is None else tuple(name for name in names if name != "text")
        self._has_text = names is None or "text" in names
        self.met: set[str] = set()

    def missing(self) -> list[str]:
        """The fields that were asked for and that no row has had."""
        return [name for name in self._names or () if name not in self.met]

    def lines(self, batch: Batch, standing: NDArray[np.bool_]) -> pl.DataFrame:
        """row, text, is_text, field: a line for each text of the rows that stand, in their order.

        A row without any has one line, empty and not `is_text`.
        """
        if self._only_text(batch):
            lines = explode(batch.frame["text"], standing)
            return lines.with_columns(field=pl.lit(0, pl.UInt8()))
        lines = self._found(batch).with_columns(is_text=pl.lit(True))
        lines = lines.filter(pl.Series(standing[lines["row"].to_numpy()]))
        without = standing.copy()
        without[lines["row"].to_numpy()] = False
        rows = pl.Series("row", np.flatnonzero(without), dtype=pl.UInt32())
        empty = rows.to_frame().select(
            "row", text=pl.lit(""), field=pl.lit(0, pl.UInt8()), is_text=pl.lit(False)
        )
        both = pl.concat([lines, empty]).sort("row", maintain_order=True)
        return both.select("row", "text", "is_text", "field")

    def numbers(self, batch: Batch) -> NDArray[np.int64]:
        """(rows,) how many texts each row has."""
        if self._only_text(batch):
            return batch.frame["text"].list.len().fill_null(0).cast(pl.Int64()).to_numpy()
        return np.bincount(self._found(batch)["row"].to_numpy(), minlength=len(batch))

    def contents(self, batch: Batch) -> pl.Series | list[Any]:
        """The texts of each row, for its checksum: a list, or an object of lists where there are other fields."""
        if self._only_text(batch):
            return batch.frame["text"]
        contents: list[Any] = batch.frame["text"].to_list()
        for row, text, field in self._found(batch).filter(pl.col("field") > 0).iter_rows():
            if not isinstance(contents[row], dict):
                contents[row] = {} if contents[row] is None else {"text": contents[row]}
            contents[row].setdefault(self._others[field - 1], []).append(text)
        return contents

    def put_back(self, batch: Batch, lines: pl.DataFrame, standing: NDArray[np.bool_]) -> Batch:
        """The batch with, in rows that stand, only the texts that `lines` has; a field without any is absent."""
        left = lines.filter("is_text").group_by("row", "field", maintain_order=True).agg("text")
        had = None if self._only_text(batch) else self._found(batch)
        batch = self._put_text(batch, left.filter(pl.col("field") == 0), had, standing)
        if had is None:
            return batch
        for number, name in enumerate(self._others, start=1):
            rows = had.filter(pl.col("field") == number)["row"].unique()
            touched = [row for row in rows.sort().to_list() if standing[row]]
            if touched:
                mine = left.filter(pl.col("field") == number)
                kept = dict(zip(mine["row"].to_list(), mine["text"].to_list(), strict=True))
                batch = replace(batch, rest=_put(batch.rest, name, {row: kept.get(row) for row in touched}))
        return batch

    def _put_text(
        self, batch: Batch, left: pl.DataFrame, had: pl.DataFrame | None, standing: NDArray[np.bool_]
    ) -> Batch:
        rows = pl.DataFrame({"row": np.arange(len(batch), dtype=np.uint32)})
        text = rows.join(left, on="row", how="left", maintain_order="left")["text"]
        old = batch.frame["text"]
        new = pl.select(pl.when(text.is_not_null()).then(text).otherwise(old)).to_series()
        if had is not None:  # other fields may hold a row whose text is gone
            given = np.zeros(len(batch), np.bool_)
            given[had.filter(pl.col("field") == 0)["row"].to_numpy()] = True
            gone = pl.Series(given & standing) & text.is_null()
            new = pl.select(pl.when(gone).then(None).otherwise(new)).to_series()
        return replace(batch, frame=batch.frame.with_columns(text=new))

    def _only_text(self, batch: Batch) -> bool:
        return self._names == ("text",) or (
            self._names is None and not batch.frame["text"].null_count() and len(batch) > 0
        )

    def _found(self, batch: Batch) -> pl.DataFrame:
        """row, text, field of all texts, row by row in the order of the fields."""
        parts = (
            [field_texts(batch, "text").with_columns(field=pl.lit(0, pl.UInt8()))] if self._has_text else []
        )
        absent = batch.frame["text"].is_null()
        for number, name in enumerate(self._others, start=1):
            lines = field_texts(batch, name).with_columns(field=pl.lit(number, pl.UInt8()))
            if self._names is None:
                lines = lines.filter(absent.gather(lines["row"]))
            if lines.height:
                self.met.add(name)
            parts.append(lines)
        if self._has_text and parts[0].height:
            self.met.add("text")
        return pl.concat(parts).sort("row", maintain_order=True)


def _put(rest: Any, name: str, values: dict[int, list[str] | None]) -> Any:
    """`rest` with the field of these rows replaced; a string stays a string, None takes the field away."""
    if isinstance(rest, pl.DataFrame):
        column = rest[name]
        is_list = isinstance(column.dtype, pl.List | pl.Array)
        cells: list[Any] = column.to_list()
        for row, texts in values.items():
            cells[row] = texts if texts is None or is_list else texts[0]
        kind = pl.List(pl.String()) if is_list else pl.String()
        return rest.with_columns(pl.Series(name, cells, kind))
    rows = list(rest)
    for row, texts in values.items():
        changed = dict(rows[row])
        if texts is None:
            del changed[name]
        else:
            changed[name] = texts[0] if isinstance(changed[name], str) else texts
        rows[row] = changed
    return rows


def explode(texts: pl.Series, standing: NDArray[np.bool_]) -> pl.DataFrame:
    """row, text, is_text: a line for each text of the rows that stand; an empty one for a row without any."""
    if (texts.list.len() == 1).all() and not texts.null_count():
        numbers = np.arange(len(texts), dtype=np.uint32)
        lines = pl.DataFrame({"row": numbers, "text": texts.explode(empty_as_null=True)})
        return lines.with_columns(pl.col("text").fill_null(""), is_text=pl.lit(True)).filter(standing)
    rows = pl.DataFrame({"row": np.arange(len(texts), dtype=np.uint32), "text": texts}).filter(standing)
    rows = rows.with_columns(is_text=(pl.col("text").list.len() > 0).fill_null(False))
    return rows.explode("text", empty_as_null=True).with_columns(pl.col("text").fill_null(""))

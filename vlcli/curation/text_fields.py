"""The text fields of a row: `text`, ZERO's three, the search key and the candidates [Z §2.1]."""

from __future__ import annotations

from typing import Any

import polars as pl

from vlcli.records.batch import Batch

INSTEAD = ("title", "content", "image_query")  # a row's captions where it has no `text`
FIELDS = ("text", *INSTEAD, "query", "text_candidates")


def field_texts(batch: Batch, name: str) -> pl.DataFrame:
    """row (UInt32, its place in the batch) and text, a line for each string that the field holds.

    What is neither a string nor a list of strings is no text.
    """
    if name in batch.frame.columns:
        column = batch.frame[name]
    elif isinstance(batch.rest, pl.DataFrame):
        if name not in batch.rest.columns:
            return _EMPTY
        column = batch.rest[name]
    else:
        column = pl.Series(name, [_strings(value) for value in batch.values(name)], pl.List(pl.String()))
    if isinstance(column.dtype, pl.List | pl.Array):
        inner: Any = column.dtype.inner
    else:
        inner = column.dtype
    if not isinstance(inner, pl.String | pl.Categorical | pl.Enum):
        return _EMPTY
    lines = pl.DataFrame({"text": column}).with_row_index("row")
    if column.dtype != inner:
        lines = lines.explode("text", empty_as_null=True)
    return lines.drop_nulls("text").cast({"row": pl.UInt32(), "text": pl.String()})


def _strings(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else None


_EMPTY = pl.DataFrame(schema={"row": pl.UInt32(), "text": pl.String()})

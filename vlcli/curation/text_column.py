"""A further column with something for each text, shaped as `text` is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from vlcli.records.batch import Batch


def by_row(batch: Batch, lists: Sequence[list[str] | None], values: Sequence[Any]) -> list[Any]:
    """A value for each text, gathered as `text` is: one where that is a string, else a list of them."""
    left = iter(values)
    rows: list[Any] = []
    for row, is_scalar in zip(lists, batch.frame["text_is_scalar"].fill_null(False), strict=True):
        own = None if row is None else [next(left) for _ in row]
        rows.append(own[0] if is_scalar and own else own)
    return rows


def with_column(batch: Batch, name: str, values: list[Any], of_text: Any) -> Batch:
    """The batch with a further column at its end, in place of one of that name; `of_text` is the type for one text."""
    if not isinstance(batch.rest, pl.DataFrame):
        rest = [
            {**{k: v for k, v in row.items() if k != name}, name: value}
            for row, value in zip(batch.rest, values, strict=True)
        ]
        return replace(batch, rest=rest)
    is_scalar = batch.frame["text_is_scalar"].fill_null(False).all()
    column = pl.Series(name, values, of_text if is_scalar else pl.List(of_text))
    others = batch.rest.drop(name, strict=False)
    return replace(batch, rest=others.with_columns(column) if others.width else column.to_frame())

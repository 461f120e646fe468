"""A further column with something for each text, shaped as `text` is."""

from __future__ import annotations

from collections.abc import Sequence
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
    is_scalar = batch.frame["text_is_scalar"].fill_null(False).all()
    return batch.with_other(name, values, of_text if is_scalar else pl.List(of_text))

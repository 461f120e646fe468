"""Columns of the rows' own that rules read as numbers: flags, scores, click-through rates."""

from __future__ import annotations

import polars as pl

from vlcli.errors import InputError
from vlcli.records.batch import Batch

CTR = "ctr"
_WORDS = {"true": 1.0, "false": 0.0, "": None}


def number_column(batch: Batch, name: str) -> pl.Series:
    """A column that is not one of COLUMNS, as Float64: true is 1, false 0; null where a row has none.

    `ctr` is clicks over impressions where a row has those instead, and none where it was never shown. Raises
    InputError for what is neither a number nor true or false.
    """
    column = _column(batch, name)
    if name != CTR or not column.null_count():
        return column
    clicks, shown = _column(batch, "clicks"), _column(batch, "impressions")
    rate = pl.select(pl.when(shown > 0).then(clicks / shown)).to_series()
    return column.zip_with(column.is_not_null(), rate)


def _column(batch: Batch, name: str) -> pl.Series:
    column = batch.column(name)
    if column.dtype == pl.Boolean() or column.dtype.is_numeric() or column.dtype == pl.Null():
        return column.cast(pl.Float64()).fill_nan(None).alias(name)
    if column.dtype == pl.String():  # of a mixed or a CSV-born column
        words = column.str.strip_chars().str.to_lowercase()
        numbers = words.replace_strict(
            list(_WORDS), list(_WORDS.values()), default=words.cast(pl.Float64(), strict=False)
        )
        numbers = numbers.cast(pl.Float64())
        wrong = (numbers.is_null() & words.is_not_null() & (words != "")).arg_true()
    else:
        numbers, wrong = pl.Series([None] * len(batch), dtype=pl.Float64()), column.is_not_null().arg_true()
    if len(wrong):
        place = {"line" if batch.text_lines else "row": int(batch.frame["line"][wrong[0]])}
        raise InputError(
            f"{name} is {str(column[wrong[0]])[:40]!r}, neither a number nor true or false",
            file=batch.file,
            remedy=f"judge words with --where, e.g. \"{name} = 'UNLIKELY'\"",
            **place,
        )
    return numbers.alias(name)

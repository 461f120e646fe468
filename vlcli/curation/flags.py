"""Rules on what somebody has already said about the image: flags and scores in columns of the row's own.

Pornographic images are dropped by ALIGN (§3), sexual and violent ones by ZERO (App. A); neither names its classifier,
so its verdict is read from the row.
"""

from __future__ import annotations

import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule
from vlcli.errors import InputError, UsageError
from vlcli.records.batch import COLUMNS, Batch

SCORE = "nsfw"
_WORDS = {"true": 1.0, "false": 0.0, "": None}


def parse_flags(value: object, name: str) -> str:
    """`nsfw,violent`: names of columns, as they stand; UsageError for one that cannot be a flag."""
    flags = [flag.strip() for flag in str(value).split(",")]
    if not all(flags):
        raise UsageError(f"{name} {value!r}: a column's name is empty", remedy="write nsfw or nsfw,violent")
    for flag in flags:
        if flag in COLUMNS:
            raise UsageError(f"{name} {value!r}: {flag} is no flag", remedy="name a column of true and false")
    return ",".join(flags)


def drop_flag(flags: str) -> Rule:
    """Drops a row in which any of the columns is true, or a number other than 0; an absent flag is not set."""
    names = tuple(flags.split(","))
    keep = ~pl.any_horizontal((pl.col(name) != 0).fill_null(False) for name in names)
    return Rule("drop-flag", "row", names, keep, f"flagged: {flags}")


def max_nsfw(bound: Bound) -> Rule:
    """Keeps a row whose score is within the bound, and one that nobody has scored."""
    keep = pl.col(SCORE).is_null() | bound.holds(pl.col(SCORE))
    return Rule("max-nsfw", "row", (SCORE,), keep, f"nsfw is not {bound}")


def number_column(batch: Batch, name: str) -> pl.Series:
    """A column that is not one of COLUMNS, as Float64: true is 1, false 0; null where a row has none.

    Raises InputError for what is neither a number nor true or false.
    """
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

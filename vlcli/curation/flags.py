"""Rules on what somebody has already said about the image: flags and scores in columns of the row's own.

Pornographic images are dropped by ALIGN (§3), sexual and violent ones by ZERO (App. A); neither names its classifier,
so its verdict is read from the row.
"""

from __future__ import annotations

import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule
from vlcli.errors import UsageError
from vlcli.records.batch import COLUMNS

SCORE = "nsfw"


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

"""Texts that describe nothing: file names like `000.jpg`, bare numbers (Wukong §3, reading D5)."""

from __future__ import annotations

import polars as pl

from vlcli.curation.rule import Rule

FILE_NAME = r"(?i)^[\w\-. ]+\.(jpe?g|png|gif|bmp|webp|tiff?)$"
# Decimal digits, punctuation and the symbols a keyboard counts among it (+ = $ ^ …); emoji are other symbols.
DIGITS_OR_PUNCTUATION = r"^[\p{Nd}\p{P}\p{Sm}\p{Sc}\p{Sk}\s]*$"


def _is_file_name(texts: pl.Series) -> pl.Series:
    rows = texts.str.contains(".", literal=True).fill_null(False).arg_true()  # few have one
    found = pl.repeat(False, len(texts), dtype=pl.Boolean(), eager=True)
    return found.scatter(rows, texts.gather(rows).str.strip_chars().str.contains(FILE_NAME))


def drop_meaningless() -> Rule:
    """Drops a text that, stripped, is a file name as a whole, or only digits and punctuation, or empty."""
    stripped = pl.col("text").str.strip_chars().str
    file_name = pl.col("text").map_batches(_is_file_name, return_dtype=pl.Boolean())
    keep = ~(file_name | stripped.contains(DIGITS_OR_PUNCTUATION))
    return Rule(
        "drop-meaningless",
        "text",
        ("text",),
        keep,
        "a file name, or only digits and punctuation",
        judges="text",
    )

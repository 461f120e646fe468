"""The captions of each language of a sweep: in columns, in files, or in rows that say their language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from vlcli.errors import UsageError
from vlcli.shards.pair_table import PairTable
from vlcli.shards.pairs import load_pairs
from vlcli.text.languages import SLOT, named, varies

COLUMN = f"text_{SLOT}"
NAMING = ("split", "lang")


def load_captions(
    paths: Sequence[str], langs: Sequence[str], *, column: str | None = None, **how: Any
) -> dict[str, PairTable]:
    """A table for each language; all show the same pictures, or each its own (see `shared_rows`).

    - `paths` with `{lang}`: the files of that name, each read as if alone;
    - `column` with `{lang}`, default `text_{lang}`: that column's texts beside the same pictures. A row without a text
      in a language shows a picture that is a candidate and no query;
    - without such columns, and without `column`: the rows whose `lang` it is.

    `how` goes to `load_pairs`. Raises UsageError naming a language that the data does not have.
    """
    if any(varies(path) for path in paths):
        if column is not None:
            raise UsageError(
                f"--text-column {column}: --data has {SLOT} already, and each file its own texts"
            )
        return {lang: _file(paths, lang, **how) for lang in langs}
    if column is not None and not varies(column):
        raise UsageError(
            f"--text-column {column} is the same in every language", remedy=f"write {SLOT} in it: {COLUMN}"
        )
    columns = {lang: named(column or COLUMN, lang) for lang in langs}
    extra = list(dict.fromkeys((*columns.values(), *NAMING)))
    table = load_pairs(paths, optional=extra, need_text=False, **how)
    there = {lang for lang, name in columns.items() if table.frame[name].null_count() < len(table)}
    if column is None and not there and table.frame["lang"].null_count() < len(table):
        return by_language(table, langs)
    for lang, name in columns.items():
        if lang not in there:
            raise absent(lang, name, table.source, "--text-column")
    return {lang: _column_of(table, name) for lang, name in columns.items()}


def by_language(table: PairTable, langs: Sequence[str]) -> dict[str, PairTable]:
    """The rows of each language, which the column `lang` of the frame says. Raises UsageError for one without rows."""
    said = {str(value) for value in table.frame["lang"].unique() if value is not None}
    for lang in langs:
        if lang not in said:
            raise UsageError(
                f"--langs {lang}: no row of {table.source} has that lang",
                remedy=f"leave it out; there are {', '.join(sorted(said))}",
            )
    return {lang: _rows_of(table, lang) for lang in langs}


def absent(lang: str, column: str, source: str, option: str) -> UsageError:
    """What to say of a language that has no column."""
    return UsageError(
        f"--langs {lang}: no row of {source} has a column {column!r}",
        remedy=f"leave {lang} out, or name its column: {option} X_{SLOT}, --map {column}=COLUMN",
    )


def require_files(paths: Sequence[str], lang: str) -> list[str]:
    """`paths` of that language. Raises UsageError for one that is not there."""
    files = [named(path, lang) for path in paths]
    for file in files:
        if not any(c in file for c in "*?[") and not Path(file).exists():
            raise UsageError(f"--langs {lang}: {file}: no such file", remedy=f"give it, or leave {lang} out")
    return files


def _file(paths: Sequence[str], lang: str, **how: Any) -> PairTable:
    return load_pairs(require_files(paths, lang), optional=NAMING, **how)


def _rows_of(table: PairTable, lang: str) -> PairTable:
    rows = (table.frame["lang"].cast(pl.String) == lang).fill_null(False).arg_true().to_list()
    return table.chosen(rows, [table.texts[row] for row in rows])


def _column_of(table: PairTable, column: str) -> PairTable:
    return table.chosen(range(len(table)), [_texts(value) for value in table.frame[column].to_list()])


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]

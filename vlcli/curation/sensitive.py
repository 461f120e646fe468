"""Sensitive words: a list from a file, and the expressions that find its words in a column [W §3.2, rule W8].

A word is found anywhere in a text, as a substring: Chinese is written without spaces. The search is polars'
Aho-Corasick automaton, one pass over the text whatever the length of the list.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from vlcli.errors import InputError, UsageError


def load_words(path: str | Path) -> list[str]:
    """The distinct words of a UTF-8 file in order: one a line, `#` starts a comment line, blank lines are
    skipped.

    Gzip is read by its magic bytes, a byte-order mark is left out. Raises UsageError when the file is
    missing, InputError (file and line) when it is not text or holds no word.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{path}: no such word list", remedy="a UTF-8 file with one word a line") from None
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"damaged gzip ({error})", file=str(file)) from None
    words: dict[str, None] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            word = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise InputError("not UTF-8", file=str(file), line=number) from None
        if word and not word.startswith("#"):
            words[word] = None
    if not words:
        raise InputError("no words", file=str(file), remedy="one word a line")
    return list(words)


def contains_any(text: pl.Expr, words: Sequence[str]) -> pl.Expr:
    """True where `text` (String) contains one of `words`, the case of ASCII letters aside; null stays null."""
    if not words:
        return pl.when(text.is_not_null()).then(pl.lit(False))
    return text.str.contains_any(list(words), ascii_case_insensitive=True)


def which(text: pl.Expr, words: Sequence[str]) -> pl.Expr:
    """The word that `contains_any` met in `text` (String), as the text spells it; null where there is none.

    The first in the text; of several that start there, the longest.
    """
    if not words:
        return pl.lit(None, dtype=pl.String)
    longest_first = sorted(words, key=len, reverse=True)
    found = text.str.extract_many(longest_first, ascii_case_insensitive=True, leftmost=True)
    return found.list.first()

"""Language by shares of scripts alone: no model, so no training data decides what counts as Chinese."""

from __future__ import annotations

import polars as pl

from vlcli.curation.rule import Rule

LANGUAGES = ("zh", "any")

_LETTER = r"\p{L}"
_HAN_LETTER = r"[\p{Han}&&\p{L}]"
_KANA_OR_HANGUL = r"[\p{Hiragana}\p{Katakana}\p{Hangul}]"


def lang(language: str) -> Rule | None:
    """`zh`: at least half of the letters are Han, one at least, and no kana or hangul. `any`: no rule."""
    assert language in LANGUAGES
    if language == "any":
        return None
    text = pl.col("text").str
    han = text.count_matches(_HAN_LETTER)
    keep = (han > 0) & (2 * han >= text.count_matches(_LETTER)) & ~text.contains(_KANA_OR_HANGUL)
    return Rule("lang", "text", ("text",), keep, "not Chinese by its scripts", judges="text")

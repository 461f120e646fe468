"""What rules measure on a text: how many words it has, in five readings of "word" (spec D1)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

WORD_UNITS = ("char", "mixed", "unigram", "jieba", "wordpiece")
SEGMENTERS = ("rjieba", "jieba")

# One CJK ideograph: of the Han script and ideographic, which leaves out 々 and the radicals, and takes in 〇.
IDEOGRAPH = r"[\p{Han}&&\p{Ideographic}]"
# ZERO counts texts with Latin words in them: an ideograph, or a run of other letters and digits.
MIXED = rf"{IDEOGRAPH}|[[\p{{L}}\p{{M}}\p{{N}}]--{IDEOGRAPH}]+"
# ALIGN's: what stands between white space and punctuation, with the symbols that a keyboard counts among it.
UNIGRAM = r"[^\s\p{P}\p{Sm}\p{Sc}\p{Sk}]+"
PATTERNS = {"char": IDEOGRAPH, "mixed": MIXED, "unigram": UNIGRAM}


@dataclass(frozen=True)
class Words:
    """What a word is: `unit` is one of WORD_UNITS; `segmenter` is the library that cuts for jieba."""

    unit: str = "char"
    segmenter: str = "rjieba"

    @property
    def column(self) -> str:
        """The column that holds the number of words of each text."""
        return f"words_{self.segmenter if self.unit == 'jieba' else self.unit}"

    @property
    def is_costly(self) -> bool:
        return self.unit not in PATTERNS


def measure(texts: pl.DataFrame, name: str) -> pl.DataFrame:
    """`texts` (column `text`, no nulls) with the measure `name` as a further column of integers."""
    kind, _, how = name.partition("_")
    assert kind == "words", f"nothing measures {name!r}"
    if how == "char":  # what is left without all else: many matches cost more than the few gaps between them
        left = pl.col("text").str.replace_all(rf"[^{IDEOGRAPH}]+", "").str.len_chars()
        return texts.with_columns(left.alias(name))
    if how in PATTERNS:
        return texts.with_columns(pl.col("text").str.count_matches(PATTERNS[how]).alias(name))
    counts = _pieces(texts["text"]) if how == "wordpiece" else _segmented(texts["text"], how)
    return texts.with_columns(counts.alias(name))


def _segmented(texts: pl.Series, engine: str) -> pl.Series:
    """Words of a segmentation that hold an ideograph: Latin, digits and punctuation are not Chinese words."""
    from vlcli.curation.words import segment

    pieces = pl.Series(segment(texts.to_list(), engine), dtype=pl.List(pl.String()))
    return pieces.list.eval(pl.element().str.contains(IDEOGRAPH)).list.sum().fill_null(0)


def _pieces(texts: pl.Series) -> pl.Series:
    """WordPiece tokens without the special ones."""
    from vlcli.text.wordpiece import WordPiece

    content = WordPiece.load().content
    return pl.Series([len(content(text)) for text in texts], dtype=pl.Int64())

"""The tokens of texts in each unit: how many a text has, and how many different ones there are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.measures import IDEOGRAPH, PATTERNS, Words
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_frequency import COUNT, PLAIN


@dataclass(frozen=True)
class Tokens:
    """The tokens of consecutive texts, one after the other, and how many of them each text has."""

    lengths: NDArray[np.int64]  # (texts,)
    flat: Any  # (sum of lengths,)


class Tokenizer(Protocol):
    """Cuts texts, and counts the different tokens among those that are given back to it."""

    def cut(self, texts: pl.Series) -> Tokens: ...
    def add(self, tokens: Tokens) -> None: ...
    def distinct(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    def saved(self) -> Any:
        """What is counted in memory, for the `merge` of another."""

    def merge(self, saved: Any) -> None: ...


class _Pieces:
    """WordPiece of 21,128 pieces, special ones left out."""

    def __init__(self) -> None:
        from vlcli.text.wordpiece import WordPiece

        wordpiece = WordPiece.load()
        self._content, self._unk = wordpiece.content, wordpiece.unk_id
        self._counts = np.zeros(wordpiece.vocab_size, np.int64)

    def cut(self, texts: pl.Series) -> Tokens:
        rows = [self._content(text) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
        return Tokens(lengths, np.fromiter(chain.from_iterable(rows), np.int64, count=int(lengths.sum())))

    def add(self, tokens: Tokens) -> None:
        self._counts += np.bincount(tokens.flat, minlength=len(self._counts))

    def distinct(self) -> int:
        return int(np.count_nonzero(self._counts))

    @property
    def unknown(self) -> int:
        return int(self._counts[self._unk])

    def saved(self) -> NDArray[np.int64]:
        return self._counts

    def merge(self, saved: NDArray[np.int64]) -> None:
        self._counts += saved


class _Strings:
    """Tokens that are strings: what a pattern finds, or the words of a segmentation that hold an ideograph."""

    unknown = 0

    def __init__(self, words: Words, counts: TextCounts) -> None:
        self._words, self._counts = words, counts

    def cut(self, texts: pl.Series) -> Tokens:
        if self._words.unit in PATTERNS:
            lists = texts.str.extract_all(PATTERNS[self._words.unit])
        else:
            lists = matching(all_words(texts, self._words.segmenter), IDEOGRAPH)
        lengths = lists.list.len().fill_null(0).cast(pl.Int64()).to_numpy()
        return Tokens(lengths, lists.explode().drop_nulls())

    def add(self, tokens: Tokens) -> None:
        self._counts.add_counts(count_strings(tokens.flat))

    def distinct(self) -> int:
        return sum(part.height for part in self._counts.counted())

    def saved(self) -> None:
        """Nothing: all is in `counts`."""

    def merge(self, saved: None) -> None:
        pass


def tokenizer(words: Words, counts: TextCounts) -> Tokenizer:
    """What counts the tokens of `words.unit`; `counts` holds those that are strings."""
    return _Pieces() if words.unit == "wordpiece" else _Strings(words, counts)


def all_words(texts: pl.Series, segmenter: str) -> pl.Series:
    """The words of each text as lists, spaces and punctuation among them."""
    from vlcli.curation.words import segment

    return pl.Series("text", segment(texts.to_list(), segmenter), pl.List(pl.String()))


def matching(words: pl.Series, pattern: str) -> pl.Series:
    """The words of each list in which `pattern` is found."""
    return words.list.eval(pl.element().filter(pl.element().str.contains(pattern)))


def count_strings(strings: pl.Series) -> pl.DataFrame:
    """PLAIN and COUNT, as `TextCounts.add_counts` takes them."""
    return strings.alias(PLAIN).to_frame().group_by(PLAIN).len(COUNT).cast({COUNT: pl.Int64()})

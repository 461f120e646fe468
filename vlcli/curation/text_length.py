"""Length rules, in words."""

from __future__ import annotations

import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.measures import Words
from vlcli.curation.rule import Rule

_NOUN = {
    "char": "Chinese characters",
    "mixed": "words",
    "unigram": "unigrams",
    "jieba": "Chinese words",
    "wordpiece": "WordPiece tokens",
}


def min_words(bound: Bound, words: Words) -> Rule:
    """At least one Chinese word in Wukong §3, which judges language too; 2 in ZERO App. A, 3 in ALIGN §3."""
    return _words("min-words", bound, words)


def max_words(bound: Bound, words: Words) -> Rule:
    """Fewer than 32 in Wukong §3: 31 are kept, 32 are dropped; 128 are kept in ZERO App. A, 20 in ALIGN §3."""
    return _words("max-words", bound, words)


def _words(name: str, bound: Bound, words: Words) -> Rule:
    return Rule(
        name,
        "text",
        (words.column,),
        bound.holds(pl.col(words.column)),
        f"number of {_NOUN[words.unit]} is not {bound}",
        judges="text",
        costly=words.is_costly,
    )

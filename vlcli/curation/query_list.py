"""A list of search queries from a corpus: its most frequent Chinese words and phrases (Wukong §3).

Wukong's 200,000 queries are the vocabulary of Song et al. (2018), cut by how often its words and phrases stand in
Chinese text. The cut is not told, so it is an option; so is the vocabulary, without which all words are candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vlcli.curation.hashed_set import HashedSet
from vlcli.curation.measures import IDEOGRAPH
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_frequency import COUNT, PLAIN
from vlcli.records.atomic import atomic_file, check_place


@dataclass(frozen=True)
class Queries:
    """What list is wanted."""

    path: Path
    number: int = 200_000
    at_least: int = 1  # times that a query stands in the corpus
    phrase: int = 1  # words of a query, at most
    vocabulary: tuple[str, ...] | None = None  # the candidates
    force: bool = False

    def check(self) -> None:
        """Raises UsageError where the list cannot be written."""
        check_place(self.path, force=self.force)


class QueryCounts:
    """Counts the candidates in texts that are cut into words (`counts`); a context manager."""

    def __init__(self, wanted: Queries, **sizes: Any) -> None:
        """`sizes` are those of `TextCounts`."""
        self._wanted = wanted
        self.counts = TextCounts(**sizes)
        self._vocabulary: HashedSet | None = None
        if wanted.vocabulary is not None:
            self._vocabulary = HashedSet()
            self._vocabulary.add(pl.Series(wanted.vocabulary, dtype=pl.String()).unique())
            self._vocabulary.freeze()

    def add(self, words: pl.Series) -> None:
        """`words` (List of String): all words of each text, spaces and punctuation among them."""
        grams = phrases(words, self._wanted.phrase)
        if self._vocabulary is not None:
            grams = grams.filter(pl.Series(self._vocabulary.contains(grams)))
        counts = grams.alias(PLAIN).to_frame().group_by(PLAIN).len(COUNT)
        self.counts.add_counts(counts.cast({COUNT: pl.Int64()}))

    def write(self, skip: tuple[str, ...] = ()) -> dict[str, Any]:
        """Write the list, the most frequent first and equals in code point order; returns what it came to."""
        order: dict[str, Any] = {"by": [COUNT, PLAIN], "descending": [True, False]}
        keep = (pl.col(COUNT) >= self._wanted.at_least) & ~pl.col(PLAIN).is_in(list(skip))
        candidates, best = 0, pl.DataFrame(schema={PLAIN: pl.String(), COUNT: pl.Int64()})
        for part in self.counts.counted():
            candidates += part.height
            best = pl.concat([best, part.filter(keep).select(best.columns)]).sort(**order)
            best = best.head(self._wanted.number)
        with atomic_file(self._wanted.path, force=self._wanted.force) as file:
            file.writelines(query.encode() + b"\n" for query in best[PLAIN])
        return {
            "written": best.height,
            "candidates": candidates,
            "asked": self._wanted.number,
            "least_frequent": best[COUNT].min(),
        }

    def __enter__(self) -> QueryCounts:
        return self

    def __exit__(self, *error: Any) -> None:
        self.counts.close()
        if self._vocabulary is not None:
            self._vocabulary.close()


def phrases(words: pl.Series, longest: int) -> pl.Series:
    """Every word that holds an ideograph, and every run of up to `longest` of them with nothing between."""
    flat = (
        words.alias("word").to_frame().with_row_index("text").explode("word", empty_as_null=True).drop_nulls()
    )
    flat = flat.with_columns(pl.col("word").str.contains(IDEOGRAPH).alias("chinese"))
    found = [flat["word"].filter(flat["chinese"])]
    for length in range(2, longest + 1):
        places = range(length)
        run = pl.concat_str(pl.col("word").shift(-i) for i in places)
        holds = pl.all_horizontal(pl.col("chinese").shift(-i, fill_value=False) for i in places)
        one_text = pl.col("text") == pl.col("text").shift(-(length - 1))
        runs = flat.select(word=run, holds=holds & one_text)
        found.append(runs["word"].filter(runs["holds"].fill_null(False)))
    return pl.concat(found)

"""The rule on rare words: every unigram and bigram of a text is among the most frequent of the corpus (ALIGN §3).

One list of unigrams and bigrams together (D11), ranked by how often they stand in the raw corpus; of those that stand
equally often at its end, the first in code point order are in it, so that it has exactly the size that was asked for.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.hashed_set import HashedSet
from vlcli.curation.measures import UNIGRAM
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_frequency import COUNT, PLAIN, plain
from vlcli.records.batch import Batch

KNOWN = "tokens_are_frequent"
_SORTED_AT_ONCE = 1 << 20  # strings


def ngram_vocab_size(bound: Bound) -> Rule:
    """Drops a text with a unigram or bigram outside the `bound` most frequent: 100,000,000 in ALIGN."""
    return Rule(
        "ngram-vocab-size",
        "corpus",
        (KNOWN,),
        pl.col(KNOWN),
        f"holds a word or pair of words outside the {bound.value:,} most frequent",
        judges="text",
        survey=lambda: Vocabulary(int(bound.value)),
        costly=True,
    )


def ngrams(texts: pl.Series) -> pl.DataFrame:
    """line (UInt32, the place of the text) and PLAIN: its unigrams, and its bigrams with a space between."""
    words = texts.alias("text").to_frame().select(plain().str.to_lowercase().str.extract_all(UNIGRAM))
    unigrams = words.with_row_index("line").explode(PLAIN, empty_as_null=True).drop_nulls()
    goes_on = pl.col("line") == pl.col("line").shift(-1)
    pairs = pl.concat_str(PLAIN, pl.col(PLAIN).shift(-1), separator=" ").alias(PLAIN)
    return pl.concat(
        [unigrams, unigrams.select("line", pairs, goes_on=goes_on).filter("goes_on").drop("goes_on")]
    )


class Vocabulary(Survey):
    """The `size` most frequent unigrams and bigrams, and whether a text has others."""

    def __init__(self, size: int, *, sorted_at_once: int = _SORTED_AT_ONCE, **sizes: Any) -> None:
        """`sizes` are those of `TextCounts`."""
        self._size, self._sorted_at_once = size, sorted_at_once
        self._counts = TextCounts(**sizes)
        self._words = HashedSet()

    def add(self, batch: Batch, texts: pl.DataFrame, standing: NDArray[np.bool_]) -> None:
        counts = ngrams(texts["text"]).group_by(PLAIN).len(COUNT)
        self._counts.add_counts(counts.cast({COUNT: pl.Int64()}))

    def save(self, folder: Path) -> None:
        self._counts.save(folder)

    def merge(self, folders: Sequence[Path]) -> None:
        self._counts.merge(folders)

    def freeze(self, folder: Path) -> None:
        self._words.save(folder)

    def thaw(self, folder: Path) -> None:
        self._words.open(folder)

    def finish(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vlcli-ngrams-") as folder:
            files, levels = [], Counter[int]()
            for number, part in enumerate(self._counts.counted()):
                files.append(Path(folder) / str(number))
                part.write_ipc(files[-1], compression="lz4")
                levels.update(dict(part.group_by(COUNT).len().iter_rows()))
            self._counts.close()
            level, room = _last_level(levels, self._size)
            tied = _Tied(files, level)
            last = tied.nth(room, self._sorted_at_once) if 0 < room < levels[level] else None
            for part in _parts(files):
                keep = pl.col(COUNT) > level
                if room:
                    at_end = pl.col(COUNT) == level
                    keep |= at_end if last is None else at_end & (pl.col(PLAIN) <= last)
                self._words.add(part.filter(keep)[PLAIN])
        self._words.freeze()

    @property
    def size(self) -> int:
        return self._words.size

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        grams = ngrams(texts["text"])
        unknown = grams["line"].filter(pl.Series(~self._words.contains(grams[PLAIN]))).unique()
        return pl.repeat(True, texts.height, eager=True).scatter(unknown, False).alias(KNOWN)

    def close(self) -> None:
        self._counts.close()
        self._words.close()


def _last_level(levels: Counter[int], size: int) -> tuple[int, int]:
    """The lowest count that is in the list, and how many strings of this count are."""
    room = size
    for level in sorted(levels, reverse=True):
        if room <= levels[level]:
            return level, room
        room -= levels[level]
    return 0, 0


def _parts(files: list[Path]) -> Iterator[pl.DataFrame]:
    for file in files:
        yield pl.read_ipc(file)


class _Tied:
    """The strings of one count, which may be most of the corpus."""

    def __init__(self, files: list[Path], level: int) -> None:
        self._files, self._level = files, level

    def _starting(self, prefix: str) -> Iterator[pl.Series]:
        keep = (pl.col(COUNT) == self._level) & pl.col(PLAIN).str.starts_with(prefix)
        for part in _parts(self._files):
            yield part.filter(keep)[PLAIN]

    def nth(self, n: int, sorted_at_once: int) -> str:
        """The n-th (from 1) in code point order: character by character, until those that remain can be sorted."""
        prefix = ""
        while True:
            longer: Counter[str] = Counter()
            for strings in self._starting(prefix):
                heads = strings.str.slice(0, len(prefix) + 1).value_counts()
                longer.update(dict(heads.iter_rows()))
            if longer.total() <= sorted_at_once:
                return str(pl.concat(list(self._starting(prefix))).sort()[n - 1])
            for head in sorted(longer):
                if n <= longer[head]:
                    break
                n -= longer[head]
            if head == prefix:  # the string itself, which is shorter than all others that start so
                return prefix
            prefix = head

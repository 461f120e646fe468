"""What a corpus holds, counted batch by batch in bounded memory: by one process, or by several whose counts are merged.

A caption is a text of `text`, or of ZERO's three fields where a row has no `text`. Its tokens are those of the
model's tokenizer without the special ones [W T2], or the words of another unit. The words whose frequencies
are told are jieba's that hold a letter [W Fig. 3].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.catalogue import one_of
from vlcli.curation.corpus_numbers import Numbers
from vlcli.curation.measures import SEGMENTERS, WORD_UNITS, Words
from vlcli.curation.query_list import Queries, QueryCounts
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_fields import FIELDS, INSTEAD, field_texts
from vlcli.curation.text_frequency import COUNT, PLAIN
from vlcli.curation.token_counts import Tokenizer, Tokens, all_words, count_strings, matching, tokenizer
from vlcli.records.batch import Batch
from vlcli.text.wordpiece import NAME_TOKEN

WORD = r"\p{L}"  # digits and punctuation are no words


@dataclass(frozen=True)
class Wanted:
    """What is to be counted, and how."""

    words: Words
    where: str | None = None
    probe: bool = False  # look up sizes that the rows lack
    top: int = 20  # words told; 0: texts are not cut into words
    skip: Sequence[str] = ()  # words not told, nor written as queries
    queries: Queries | None = None  # the list of queries to write

    @classmethod
    def of(cls, unit: str, segmenter: str, **others: Any) -> Wanted:
        """From options. Raises UsageError for an unknown unit or segmenter."""
        words = Words(one_of(unit, WORD_UNITS, "--word-unit"), one_of(segmenter, SEGMENTERS, "--segmenter"))
        return cls(words, **others)


@dataclass(frozen=True)
class Saved:
    """What one process has counted, for another: `folder` holds what is on disk."""

    numbers: Numbers
    tokens: Any
    folder: Path


class Counting:
    """Adds batch to batch."""

    def __init__(self, wanted: Wanted, stack: ExitStack) -> None:
        self._wanted = wanted
        self.numbers = Numbers()
        self._images, self._words, strings = (stack.enter_context(TextCounts()) for _ in range(3))
        self._spilled = {"images": self._images, "words": self._words, "tokens": strings}
        self._tokenizer: Tokenizer = tokenizer(wanted.words, strings)
        self._queries = stack.enter_context(QueryCounts(wanted.queries)) if wanted.queries else None
        if self._queries is not None:
            self._spilled["queries"] = self._queries.counts

    def add(self, batch: Batch) -> None:
        if not len(batch):
            return
        self.numbers.pairs += len(batch)
        self._images.add_counts(count_strings(batch.frame["image_id"].drop_nulls()))
        self.numbers.sizes.add(batch)
        has_text = np.zeros(len(batch), np.bool_)
        has_caption = np.zeros(len(batch), np.bool_)
        for name in FIELDS:
            lines = field_texts(batch, name)
            if not lines.height:
                continue
            rows, tokens = lines["row"].to_numpy(), self._tokenizer.cut(lines["text"])
            self.numbers.fields[name].add(rows, lines["text"], tokens)
            if name == "text":
                has_text[rows] = True
            elif name not in INSTEAD:
                continue
            elif has_text.any():
                lines, tokens = _of_rows(~has_text, lines, tokens)
            has_caption[lines["row"].to_numpy()] = True
            self._add_captions(lines["text"], tokens)
        self.numbers.without_text += int((~has_caption).sum())

    def _add_captions(self, texts: pl.Series, tokens: Tokens) -> None:
        if not len(texts):
            return
        self.numbers.captions += len(texts)
        self.numbers.tokens.add(tokens.lengths)
        self._tokenizer.add(tokens)
        if self._wanted.top or self._queries is not None:
            # what stands for a name is no word of the caption
            texts = texts.str.replace_all(NAME_TOKEN, " ", literal=True)
            words = all_words(texts, self._wanted.words.segmenter)
            if self._wanted.top:
                self._words.add_counts(count_strings(matching(words, WORD).explode().drop_nulls()))
            if self._queries is not None:
                self._queries.add(words)

    def save(self, folder: Path) -> Saved:
        """All that was counted; what is on disk moves to a directory of this process in `folder`, for `merge`."""
        folder /= str(os.getpid())
        for name, counts in self._spilled.items():
            (folder / name).mkdir(parents=True)
            counts.save(folder / name)
        return Saved(self.numbers, self._tokenizer.saved(), folder)

    def merge(self, others: Sequence[Saved]) -> None:
        """Count in what others have saved; their folders must stand until all is shown."""
        for saved in others:
            self.numbers.merge(saved.numbers)
            self._tokenizer.merge(saved.tokens)
        for name, counts in self._spilled.items():
            counts.merge([saved.folder / name for saved in others])

    def shown(self) -> dict[str, Any]:
        tokens = self.numbers.tokens
        return {
            "pairs": self.numbers.pairs,
            "images": sum(part.height for part in self._images.counted()),
            "captions": self.numbers.captions,
            "without_text": self.numbers.without_text,
            "word_unit": self._wanted.words.unit,
            "unique_tokens": self._tokenizer.distinct(),
            "unknown_tokens": self._tokenizer.unknown,
            "tokens": sum(value * count for value, count in tokens.table()),
            "tokens_per_caption": {**tokens.shown(), "histogram": [list(pair) for pair in tokens.table()]},
            "fields": {name: field.shown() for name, field in self.numbers.fields.items() if field.texts},
            "sizes": self.numbers.sizes.shown(),
            "words": self._top_words() if self._wanted.top else None,
            "queries": self._queries.write(tuple(self._wanted.skip)) if self._queries is not None else None,
        }

    def _top_words(self) -> dict[str, Any]:
        distinct = total = 0
        tops: list[pl.DataFrame] = []
        order: dict[str, Any] = {"by": [COUNT, PLAIN], "descending": [True, False]}
        for part in self._words.counted():
            distinct += part.height
            total += int(part[COUNT].sum())
            told = part.filter(~pl.col(PLAIN).is_in(list(self._wanted.skip))).sort(**order)
            tops.append(told.head(self._wanted.top))
        top = pl.concat(tops).sort(**order).head(self._wanted.top).to_dicts() if tops else []
        return {
            "segmenter": self._wanted.words.segmenter,
            "distinct": distinct,
            "total": total,
            "top": [{"word": line[PLAIN], "count": line[COUNT]} for line in top],
        }


def _of_rows(wanted: Any, lines: pl.DataFrame, tokens: Tokens) -> tuple[pl.DataFrame, Tokens]:
    """The lines, and their tokens, of the rows for which `wanted` (rows,) is true."""
    keep = wanted[lines["row"].to_numpy()]
    of_token = np.repeat(keep, tokens.lengths)
    flat = (
        tokens.flat.filter(pl.Series(of_token))
        if isinstance(tokens.flat, pl.Series)
        else tokens.flat[of_token]
    )
    return lines.filter(pl.Series(keep)), Tokens(tokens.lengths[keep], flat)

"""The statistics of a corpus in one pass and in bounded memory: Wukong's Table 2, ZERO's lengths, the words of
Wukong's Figure 3.

A caption is a text of `text`, or of ZERO's three fields where a row has no `text`. Its tokens are those of the
model's tokenizer without the special ones [W T2], or the words of another unit. The words whose frequencies
are told are jieba's that hold a letter [W Fig. 3].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.catalogue import one_of
from vlcli.curation.ends import Source
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.measures import SEGMENTERS, WORD_UNITS, Words
from vlcli.curation.query_list import Queries, QueryCounts
from vlcli.curation.spread import Bins, Spread
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_fields import FIELDS, INSTEAD, field_texts
from vlcli.curation.text_frequency import COUNT, PLAIN
from vlcli.curation.token_counts import Tokenizer, Tokens, all_words, count_strings, matching, tokenizer
from vlcli.curation.where import Where
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.identity import Identity
from vlcli.text.wordpiece import NAME_TOKEN

SIDES = (0, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)  # px, of the shorter side
ASPECTS = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5)  # longer side over shorter side
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


def collect(
    source: Source,
    wanted: Wanted,
    *,
    max_bad: str = "0",
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The report; its keys are stable. `on_progress` is told the rows of each batch.

    Raises UsageError for a condition that cannot be, InputError for damage and for more bad rows than
    `max_bad`.
    """
    if wanted.queries is not None:
        wanted.queries.check()
    with ExitStack() as stack:
        statistics = _Statistics(wanted, stack)
        where = Where(wanted.where) if wanted.where is not None else None
        identity = stack.enter_context(Identity())
        sizes = stack.enter_context(HeaderSizes())
        bad = BadRows(max_bad)
        unused = 0
        for batch in source.batches(source.inputs, bad):
            rows = len(batch)
            if where is not None:
                batch = identity.assign(batch) if {"id", "image_id"} & set(where.columns) else batch
                batch = batch.take(where.judge(where.view(batch)))
                unused += rows - len(batch)
            if wanted.probe:
                batch = _with_sizes(batch, sizes, bad)
            statistics.add(identity.assign_images(batch))
            on_progress(rows)
        if where is not None:
            where.finish()
        bad.judge()  # with the rows whose image could not be read
        rows_in = {"in": bad.seen, "used": statistics.pairs, "unused": unused, "bad": bad.count}
        assert bad.seen == statistics.pairs + unused + bad.count, f"rows do not add up: {rows_in}"
        return {
            "command": "stats",
            "inputs": list(source.inputs) or ["-"],
            "rows": rows_in,
            **statistics.shown(),
        }


def cut_words(report: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The report with the `number` most frequent words alone, where more were asked for than are to be told."""
    words = report["words"]
    return {**report, "words": {**words, "top": words["top"][:number]} if words and number else None}


class _Statistics:
    """Adds batch to batch."""

    def __init__(self, wanted: Wanted, stack: ExitStack) -> None:
        self._wanted = wanted
        self.pairs = self._without_text = self._captions = 0
        self._images, self._words = (stack.enter_context(TextCounts()) for _ in range(2))
        self._queries = stack.enter_context(QueryCounts(wanted.queries)) if wanted.queries else None
        self._tokenizer: Tokenizer = tokenizer(wanted.words, stack.enter_context(TextCounts()))
        self._tokens = Spread()
        self._fields = {name: _Field() for name in FIELDS}
        self._sizes = _Sizes()

    def add(self, batch: Batch) -> None:
        if not len(batch):
            return
        self.pairs += len(batch)
        self._images.add_counts(count_strings(batch.frame["image_id"].drop_nulls()))
        self._sizes.add(batch)
        has_text = np.zeros(len(batch), np.bool_)
        has_caption = np.zeros(len(batch), np.bool_)
        for name in FIELDS:
            lines = field_texts(batch, name)
            if not lines.height:
                continue
            rows, tokens = lines["row"].to_numpy(), self._tokenizer.cut(lines["text"])
            self._fields[name].add(rows, lines["text"], tokens)
            if name == "text":
                has_text[rows] = True
            elif name not in INSTEAD:
                continue
            elif has_text.any():
                lines, tokens = _of_rows(~has_text, lines, tokens)
            has_caption[lines["row"].to_numpy()] = True
            self._add_captions(lines["text"], tokens)
        self._without_text += int((~has_caption).sum())

    def _add_captions(self, texts: pl.Series, tokens: Tokens) -> None:
        if not len(texts):
            return
        self._captions += len(texts)
        self._tokens.add(tokens.lengths)
        self._tokenizer.add(tokens)
        if self._wanted.top or self._queries is not None:
            # what stands for a name is no word of the caption
            texts = texts.str.replace_all(NAME_TOKEN, " ", literal=True)
            words = all_words(texts, self._wanted.words.segmenter)
            if self._wanted.top:
                self._words.add_counts(count_strings(matching(words, WORD).explode().drop_nulls()))
            if self._queries is not None:
                self._queries.add(words)

    def shown(self) -> dict[str, Any]:
        tokens = self._tokens
        return {
            "pairs": self.pairs,
            "images": sum(part.height for part in self._images.counted()),
            "captions": self._captions,
            "without_text": self._without_text,
            "word_unit": self._wanted.words.unit,
            "unique_tokens": self._tokenizer.distinct(),
            "unknown_tokens": self._tokenizer.unknown,
            "tokens": sum(value * count for value, count in tokens.table()),
            "tokens_per_caption": {**tokens.shown(), "histogram": [list(pair) for pair in tokens.table()]},
            "fields": {name: field.shown() for name, field in self._fields.items() if field.texts},
            "sizes": self._sizes.shown(),
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


class _Field:
    """One text field: in how many rows it stands, and how long its texts are."""

    def __init__(self) -> None:
        self.rows = self.texts = 0
        self._tokens, self._characters = Spread(), Spread()

    def add(self, rows: Any, texts: pl.Series, tokens: Tokens) -> None:
        self.rows += len(np.unique(rows))
        self.texts += len(texts)
        self._tokens.add(tokens.lengths)
        self._characters.add(texts.str.len_chars().to_numpy())

    def shown(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "texts": self.texts,
            "tokens": self._tokens.shown(),
            "characters": self._characters.shown(),
        }


class _Sizes:
    """Width, height and what is made of them, of the rows that have both."""

    def __init__(self) -> None:
        self._unknown = 0
        self._spreads = {name: Spread() for name in ("width", "height", "shorter_side")}
        self._sides, self._aspects = Bins(SIDES), Bins(ASPECTS)

    def add(self, batch: Batch) -> None:
        given = batch.frame.select("width", "height").filter(_KNOWN)
        self._unknown += len(batch) - given.height
        width, height = (given[name].to_numpy() for name in ("width", "height"))
        shorter = np.minimum(width, height)
        for spread, values in zip(self._spreads.values(), (width, height, shorter), strict=True):
            spread.add(values)
        self._sides.add(shorter)
        self._aspects.add(np.maximum(width, height) / shorter)

    def shown(self) -> dict[str, Any]:
        return {
            "rows": self._spreads["width"].number,
            "unknown": self._unknown,
            **{name: spread.shown() for name, spread in self._spreads.items()},
            "shorter_side_histogram": self._sides.shown(),
            "aspect_histogram": self._aspects.shown(),
        }


_KNOWN = pl.all_horizontal((pl.col(name) > 0).fill_null(False) for name in ("width", "height"))


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


def _with_sizes(batch: Batch, sizes: HeaderSizes, bad: BadRows) -> Batch:
    """The rows with width and height; those whose image cannot be read go to the bad ones."""
    known = batch.frame.select(_KNOWN).to_series()
    if known.all():
        return batch
    lacking = batch.take(~known)
    found, unreadable = sizes(lacking)
    places = (~known).arg_true()
    columns = [batch.frame[n].clone().scatter(places, found[n]) for n in ("width", "height")]
    keep = np.ones(len(batch), np.bool_)
    for place, cause in unreadable:
        row = int(places[place])
        keep[row] = False
        raw = next(iter(batch.slice(row, 1).rows()))
        bad.add(batch.file, batch.frame["line"][row], cause, raw, text_lines=batch.text_lines)
    return batch.with_columns(*columns).take(pl.Series(keep))

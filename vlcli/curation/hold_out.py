"""A test set of exactly N rows that the training rows share no image and no text with.

Wukong50K is such a set; how it was made is not told (spec D7): here by chance, after all rules, with a fixed seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.chance import Codes
from vlcli.curation.features import IMAGE, TEXTS, Names, draw
from vlcli.curation.first_rows import is_in
from vlcli.curation.ranking import Ranking
from vlcli.curation.selection import HELD_OUT, LEFT_OUT, Reach, Selection, Verdicts, Walk
from vlcli.errors import UsageError

_DRAW = draw("hold-out")


class HoldOut(Selection):
    """Holds out the N rows with the lowest draws, and leaves out every other row that has an image_id or a text of
    theirs: texts are compared as max-text-freq does, after the rules have changed them.

    Images and texts are told apart by 64 bits: two that are taken for one cost a row, and never let one through.
    Memory: about 50 bytes for each row held out.
    """

    name = "hold-out"
    reason = "shares an image or a text with a row held out"
    reach: Reach = "all"
    needs = frozenset({_DRAW, IMAGE, TEXTS})

    def __init__(self, number: int, **sizes: Any) -> None:
        """`sizes` are those of `Ranking`."""
        self._number, self._sizes = number, sizes
        self._rows = np.zeros(0, np.int64)  # in order
        self._images: Codes = np.zeros(0, np.uint64)
        self._texts: Codes = np.zeros(0, np.uint64)
        self._at = 0

    def decide(self, walk: Walk, names: Names) -> None:
        with Ranking(most=self._number, **self._sizes) as ranking:
            seen = 0
            for piece in walk():
                draws = piece[_DRAW].to_numpy()
                ranking.add(draws, np.zeros(len(draws), np.uint64), np.arange(seen, seen + len(draws)))
                seen += len(draws)
            if seen < self._number:
                raise UsageError(f"--hold-out {self._number}: only {seen:,} rows pass")
            self._rows = np.sort(np.concatenate([rows[rank < self._number] for _, rank, rows in ranking]))
        images, texts, start = [], [], 0
        for piece in walk():
            held = piece[(self._within(start, piece.height) - start).tolist()]
            images.append(held[IMAGE].drop_nulls().to_numpy())
            texts.append(held[TEXTS].explode().drop_nulls().to_numpy())
            start += piece.height
        self._images, self._texts = np.unique(np.concatenate(images)), np.unique(np.concatenate(texts))

    def _within(self, start: int, length: int) -> np.ndarray:
        """The rows held out among the `length` from `start` on."""
        ends = np.searchsorted(self._rows, [start, start + length])
        return self._rows[ends[0] : ends[1]]

    def select(self, rows: pl.DataFrame) -> Verdicts:
        found = np.zeros(rows.height, np.int8)
        images = rows[IMAGE]
        shares = is_in(self._images, images.fill_null(0).to_numpy()) & images.is_not_null().to_numpy()
        texts = rows[TEXTS].to_frame().with_row_index("row").explode(TEXTS).drop_nulls()
        shares[texts["row"].to_numpy()[is_in(self._texts, texts[TEXTS].to_numpy())]] = True
        found[shares] = LEFT_OUT
        found[self._within(self._at, rows.height) - self._at] = HELD_OUT
        self._at += rows.height
        return found

"""The first rows, and the first images with all their captions: "first" means the order of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.amount import Amount
from vlcli.curation.chance import Codes
from vlcli.curation.features import IMAGE, Names
from vlcli.curation.selection import Reach, Selection, Verdicts, Walk, taken


class First(Selection):
    """The first N rows, or the first x % (ZERO's ablations take the first 1 % of the corpus)."""

    name = "first"
    needs = frozenset[str]()

    def __init__(self, amount: Amount) -> None:
        self._amount = amount
        self.reach: Reach = "before" if amount.share is None else "all"
        self.reason = f"not among the first {amount} of the rows that pass"
        self._left = amount.number or 0

    def decide(self, walk: Walk, names: Names) -> None:
        self._left = self._amount.of(sum(piece.height for piece in walk()))

    def select(self, rows: pl.DataFrame) -> Verdicts:
        keep = np.arange(rows.height) < self._left
        self._left -= min(self._left, rows.height)
        return taken(keep)

    def told(self) -> dict[str, Any]:
        return {"asked": str(self._amount), "short": int(self._left > 0)}


class FirstImages(Selection):
    """All rows of the first N different images, wherever they stand; a row without an image is none of them.

    AIC-ICC's test set is its first 10,000 images and their 50,000 texts (Wukong §5.3, ZERO App. C).
    """

    name = "first-images"
    reach: Reach = "before"
    needs = frozenset({IMAGE})

    def __init__(self, number: int) -> None:
        self._number = number
        self.reason = f"image not among the first {number:,}"
        self._images: Codes = np.zeros(0, np.uint64)  # in order

    def select(self, rows: pl.DataFrame) -> Verdicts:
        images = rows[IMAGE]
        room = self._number - len(self._images)
        if room > 0:
            new = images.drop_nulls().unique(maintain_order=True).to_numpy()
            new = new[~is_in(self._images, new)][:room]
            self._images = np.sort(np.concatenate([self._images, new]))
        keep = is_in(self._images, images.fill_null(0).to_numpy()) & images.is_not_null().to_numpy()
        return taken(keep)

    def told(self) -> dict[str, Any]:
        images = len(self._images)
        return {"asked": str(self._number), "short": int(images < self._number), "images": images}


def is_in(ordered: Codes, asked: Codes) -> np.ndarray:
    """(n,) bool, whether each of `asked` is in `ordered`."""
    if not len(ordered):
        return np.zeros(len(asked), np.bool_)
    at = np.searchsorted(ordered, asked)
    return np.asarray(ordered[np.minimum(at, len(ordered) - 1)] == asked)

"""What `stats` counts in memory: rows, lengths of texts, sizes of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.spread import Bins, Spread
from vlcli.curation.text_fields import FIELDS
from vlcli.curation.token_counts import Tokens
from vlcli.records.batch import Batch

SIDES = (0, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)  # px, of the shorter side
ASPECTS = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5)  # longer side over shorter side
KNOWN = pl.all_horizontal((pl.col(name) > 0).fill_null(False) for name in ("width", "height"))


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

    def merge(self, other: _Field) -> None:
        self.rows += other.rows
        self.texts += other.texts
        self._tokens.merge(other._tokens)
        self._characters.merge(other._characters)

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
        given = batch.frame.select("width", "height").filter(KNOWN)
        self._unknown += len(batch) - given.height
        width, height = (given[name].to_numpy() for name in ("width", "height"))
        shorter = np.minimum(width, height)
        for spread, values in zip(self._spreads.values(), (width, height, shorter), strict=True):
            spread.add(values)
        self._sides.add(shorter)
        self._aspects.add(np.maximum(width, height) / shorter)

    def merge(self, other: _Sizes) -> None:
        self._unknown += other._unknown
        for name, spread in self._spreads.items():
            spread.merge(other._spreads[name])
        self._sides.merge(other._sides)
        self._aspects.merge(other._aspects)

    def shown(self) -> dict[str, Any]:
        return {
            "rows": self._spreads["width"].number,
            "unknown": self._unknown,
            **{name: spread.shown() for name, spread in self._spreads.items()},
            "shorter_side_histogram": self._sides.shown(),
            "aspect_histogram": self._aspects.shown(),
        }


@dataclass
class Numbers:
    """What is counted in memory."""

    pairs: int = 0
    without_text: int = 0
    captions: int = 0
    tokens: Spread = field(default_factory=Spread)
    fields: dict[str, _Field] = field(default_factory=lambda: {name: _Field() for name in FIELDS})
    sizes: _Sizes = field(default_factory=_Sizes)

    def merge(self, other: Numbers) -> None:
        """Count in what another has counted."""
        self.pairs += other.pairs
        self.without_text += other.without_text
        self.captions += other.captions
        self.tokens.merge(other.tokens)
        self.sizes.merge(other.sizes)
        for name, counted in self.fields.items():
            counted.merge(other.fields[name])

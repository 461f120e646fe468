"""Rules on texts that many images share, and on images that have many texts (ALIGN §3: more than 10, more than 1,000).

Different images of a text, and different texts of an image, are counted: pairs are made distinct first, and then
counted by one of their sides, both through files by a hash, so that not even one text of half the corpus has to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_frequency import COUNT, PLAIN, FrequentTexts, plain
from vlcli.records.batch import Batch

IMAGES, TEXTS = "images_of_text", "texts_of_image"
_SEPARATOR = "\0"  # in no text and no identity: a row with one is bad


def max_images_per_text(bound: Bound) -> Rule:
    """Drops every copy of a text that too many different images have: of 10 it is kept, of 11 dropped."""
    keep = pl.col(IMAGES).is_null() | bound.holds(pl.col(IMAGES))
    return Rule(
        "max-images-per-text",
        "corpus",
        (IMAGES,),
        keep,
        f"images with this text are not {bound}",
        judges="text",
        survey=lambda: Sharing(bound, by="text"),
    )


def max_texts_per_image(bound: Bound) -> Rule:
    """Drops every row of an image that has too many different texts: with 1,000 it is kept, with 1,001 dropped."""
    keep = pl.col(TEXTS).is_null() | bound.holds(pl.col(TEXTS))
    return Rule(
        "max-texts-per-image",
        "corpus",
        (TEXTS,),
        keep,
        f"texts of this image are not {bound}",
        survey=lambda: Sharing(bound, by="image_id"),
    )


class Sharing(Survey):
    """How many different images each text has (`by="text"`), or texts each image (`by="image_id"`).

    Images are told apart by image_id, texts as `max-text-freq` does; a row without an image counts for neither.
    """

    needs_images = True

    def __init__(self, bound: Bound, *, by: str, **sizes: Any) -> None:
        """`sizes` are those of `TextCounts`."""
        self._bound, self._by = bound, by
        self._pairs, self._counts = TextCounts(**sizes), TextCounts(**sizes)
        self._over: FrequentTexts | None = None

    def add(self, batch: Batch, texts: pl.DataFrame, standing: NDArray[np.bool_]) -> None:
        pairs = texts.select(plain(), image_id=batch.frame["image_id"].gather(texts["row"]))
        sides = [PLAIN, "image_id"] if self._by == "text" else ["image_id", PLAIN]
        joined = pairs.drop_nulls().select(pl.concat_str(sides, separator=_SEPARATOR).alias(PLAIN)).unique()
        self._pairs.add_counts(joined.with_columns(pl.lit(1, pl.Int64()).alias(COUNT)))

    def save(self, folder: Path) -> None:
        self._pairs.save(folder)

    def merge(self, folders: Sequence[Path]) -> None:
        self._pairs.merge(folders)

    def freeze(self, folder: Path) -> None:
        assert self._over is not None
        self._over.freeze(folder)

    def thaw(self, folder: Path) -> None:
        self._over = FrequentTexts.thaw(folder)

    def finish(self) -> None:
        first = pl.col(PLAIN).str.split(_SEPARATOR).list.first()
        for part in self._pairs.counted():
            counts = part.select(first).group_by(PLAIN).len(COUNT)
            self._counts.add_counts(counts.cast({COUNT: pl.Int64()}))
        self._pairs.close()
        self._over = FrequentTexts(self._counts.over(self._bound))
        self._counts.close()

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        assert self._over is not None
        return (
            self._over.look_up(batch, texts) if self._by == "text" else self._over.of(batch.frame["image_id"])
        )

    def found(self) -> pl.DataFrame | None:
        return self._over.found if self._over is not None else None

    def close(self) -> None:
        self._pairs.close()
        self._counts.close()

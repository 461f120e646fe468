"""What selections know of a row: numbers that stand for its id, image, texts and for values of its columns."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.chance import draws, fingerprints
from vlcli.curation.fields import Fields
from vlcli.curation.text_frequency import PLAIN, plain
from vlcli.errors import InputError
from vlcli.records.batch import Batch

IMAGE = "image"  # UInt64 of the image_id, null in a row without an image
TEXTS = "texts"  # List(UInt64) of its texts, compared as max-text-freq does
_DRAW, _BY_IMAGE, _KEY = "draw:", "image-draw:", "key:"
NAMED = 1000  # values of a column whose names are kept, to tell of them
_REMEMBERED = 100_000


def draw(purpose: str) -> str:
    """The feature that is drawn by the row's id."""
    return _DRAW + purpose


def image_draw(purpose: str) -> str:
    """The feature that is drawn by the image_id, and is one for all rows of an image; by the id where there is none."""
    return _BY_IMAGE + purpose


def key(column: str) -> str:
    """The feature that stands for the value of a column (UInt64), null where a row has none."""
    return _KEY + column


class Names:
    """What the numbers of a column's values stand for, as long as there are few enough to be told of."""

    def __init__(self, known: Mapping[str, Mapping[int, str]] | None = None) -> None:
        self._known: dict[str, dict[int, str] | None] = {c: dict(names) for c, names in (known or {}).items()}

    def add(self, column: str, names: Mapping[int, str]) -> None:
        known = self._known.setdefault(column, {})
        if known is not None:
            known.update(names)
            if len(known) > NAMED:
                self._known[column] = None

    def met(self, column: str) -> bool:
        """Whether a row has had a value in the column."""
        return column in self._known

    def name(self, column: str, code: int) -> str | None:
        """None where there are too many values in the column."""
        known = self._known.get(column)
        return known.get(code) if known is not None else None

    def merge(self, other: Names) -> None:
        for column, known in other._known.items():
            if known is None:
                self._known[column] = None
            else:
                self.add(column, known)

    def state(self) -> dict[str, dict[str, str] | None]:
        """As JSON has it."""
        return {
            column: None if known is None else {str(code): name for code, name in known.items()}
            for column, known in self._known.items()
        }

    @classmethod
    def of(cls, state: Mapping[str, Mapping[str, str] | None]) -> Names:
        found = cls()
        for column, known in state.items():
            found._known[column] = None if known is None else {int(c): name for c, name in known.items()}
        return found


class Features:
    """Makes the features of batches; `names` collects what the values of columns are called."""

    def __init__(self, needs: Collection[str], seed: int, fields: Fields) -> None:
        self._needs, self._seed, self._fields = sorted(needs), seed, fields
        self._codes: dict[str, dict[Any, int | None]] = {}
        self.names = Names()

    def of(self, batch: Batch) -> pl.DataFrame:
        """The features that are needed, a line for each row; rows have an `id`, and an `image_id` if any."""
        found = {name: self._feature(name, batch) for name in self._needs}
        return pl.DataFrame(found or {"": pl.repeat(None, len(batch), dtype=pl.Boolean(), eager=True)})

    def _feature(self, name: str, batch: Batch) -> pl.Series:
        ids, image_ids = batch.frame["id"], batch.frame["image_id"]
        if name == IMAGE:
            return _of_strings(image_ids)
        if name == TEXTS:
            return self._texts(batch)
        if name.startswith(_KEY):
            return self._values(batch, name.removeprefix(_KEY))
        by_image = name.startswith(_BY_IMAGE)
        purpose = name.removeprefix(_BY_IMAGE if by_image else _DRAW)
        given = image_ids.zip_with(image_ids.is_not_null(), ids) if by_image else ids
        return pl.Series(draws(purpose, self._seed, given.to_list()), dtype=pl.UInt64())

    def _texts(self, batch: Batch) -> pl.Series:
        import pyarrow as pa

        lines = self._fields.lines(batch, np.ones(len(batch), np.bool_)).filter("is_text")
        numbers = np.bincount(lines["row"].to_numpy(), minlength=len(batch))
        offsets = np.concatenate(([0], np.cumsum(numbers))).astype(np.int64)
        codes = fingerprints(lines.select(plain())[PLAIN].to_list())
        return pl.Series(pa.LargeListArray.from_arrays(offsets, pa.array(codes)))

    def _values(self, batch: Batch, column: str) -> pl.Series:
        if not isinstance(batch.rest, pl.DataFrame) and column not in batch.frame.columns:
            values: Iterable[Any] = batch.values(column)
        else:
            values = batch.column(column).to_list()
        known = self._codes.setdefault(column, {})
        if len(known) > _REMEMBERED:
            known.clear()
        codes: list[int | None] = []
        new: dict[int, str] = {}
        for place, value in enumerate(values):
            try:
                # The type as well: 1, 1.0 and True are one key of a dict.
                codes.append(known[value, type(value)])
            except (KeyError, TypeError):
                name = _name(value, batch, place, column)
                code = None if name is None else int(fingerprints([name])[0])
                known[value, type(value)] = code
                codes.append(code)
                if name is not None and code is not None:
                    new[code] = name
        if new:
            self.names.add(column, new)
        return pl.Series(codes, dtype=pl.UInt64())


def _of_strings(strings: pl.Series) -> pl.Series:
    given = strings.is_not_null()
    codes = pl.Series(fingerprints(strings.fill_null("").to_list()), dtype=pl.UInt64())
    return codes.set(~given, None)


def _name(value: Any, batch: Batch, place: int, column: str) -> str | None:
    """A value as a string: true, 3 (also for 3.0), zh; None for none, an empty string, and what is no number."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, list | dict | bytes):
        where = {"line" if batch.text_lines else "row": int(batch.frame["line"][place])}
        kind = {list: "a list", dict: "an object", bytes: "bytes"}[type(value)]
        raise InputError(
            f"{column} is {kind}: rows cannot be told apart by it",
            file=batch.file,
            remedy="name a column of strings, numbers or booleans",
            **where,
        )
    return str(value)

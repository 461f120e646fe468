"""The class of every row, by a column of the data and a set of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from vlcli.errors import InputError
from vlcli.text.labels import LabelSet


class Truth(NamedTuple):
    """`rows` of a table and their classes: `labels` (n,) int64, or (n, classes) int8 where a row may be of several: 1
    for those, −1 for what it shows and nobody need find, else 0. `left_out` rows are of classes that the names leave
    out.
    """

    rows: list[int]
    labels: Tensor
    names: LabelSet
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def places(self) -> Any:
        """`rows` as an array."""
        return np.array(self.rows, dtype=np.int64)


DIFFICULT = (
    "difficult"  # a column of names, of which VOC says that they count neither for nor against anybody
)


def one_label(value: Any) -> Any:
    """A label that came as a list of one (the column `text`) is that one."""
    if isinstance(value, pl.Series):
        value = value.to_list()
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def column_labels(column: str, values: Sequence[Any]) -> LabelSet:
    """A label set made of a column itself: each distinct value is a class and its own name."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    return LabelSet(f"values of {column}", {value: value for value in distinct})


def truth_of(table: Any, column: str, labels: LabelSet | None, *, several: bool = False) -> Truth:
    """The class of every row by its place in the label set: `labels`, or the column's own values. With `several` a row
    may be of any number of classes, a list, and show others that are DIFFICULT.

    Raises InputError for a row without a label or with more than one, for a label without a name, and when no row is
    left.
    """
    values = [one_label(value) for value in table.frame[column]]
    if not values:
        raise InputError("no rows", file=table.source)
    hidden: list[Any] = [None] * len(values)
    if several and DIFFICULT in table.frame.columns:
        hidden = [one_label(value) for value in table.frame[DIFFICULT]]
        values = [
            [] if value is None and unfound else value for value, unfound in zip(values, hidden, strict=True)
        ]
    for row, value in enumerate(values):
        if value is None or (isinstance(value, list) and not (several and (value or hidden[row]))):
            cause = "no" if not value else "more than one"
            raise InputError(f"row {table.ids[row]} has {cause} {column}", file=table.source)
    if labels is None:
        flat = [one for value in values for one in all_labels(value)]
        labels = column_labels(column, flat)
    found = _of_several(values, hidden, labels) if several else _of_one(values, labels)
    if not found.rows:
        raise InputError(f"no row is of a class of {labels.name}", file=table.source)
    return found


def _of_one(values: list[Any], names: LabelSet) -> Truth:
    places = [names.find(value) for value in values]
    rows = [row for row, place in enumerate(places) if place is not None]
    labels = torch.tensor([place for place in places if place is not None], dtype=torch.int64)
    return Truth(rows, labels, names, len(values) - len(rows))


def _of_several(values: list[Any], hidden: list[Any], names: LabelSet) -> Truth:
    rows, lines = [], []
    for row, (value, unfound) in enumerate(zip(values, hidden, strict=True)):
        line = torch.zeros(len(names), dtype=torch.int8)
        for given, mark in ((unfound, -1), (value, 1)):
            line[[place for one in all_labels(given) if (place := names.find(one)) is not None]] = mark
        if line.any():
            rows.append(row)
            lines.append(line)
    labels = torch.stack(lines) if lines else torch.zeros(0, len(names), dtype=torch.int8)
    return Truth(rows, labels, names, len(values) - len(rows))


def all_labels(value: Any) -> list[Any]:
    """What a cell names: nothing, one, or a list."""
    return [] if value is None else value if isinstance(value, list) else [value]

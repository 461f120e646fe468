"""Which strings of a column hold a byte of some kind: their UTF-8 is looked through a cacheful at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

_BLOCK = 1 << 17  # bytes

Bytes = NDArray[np.uint8]
Marks = Callable[[Bytes], NDArray[np.bool_]]  # of each byte


def holding(strings: pl.Series, marks: Marks) -> NDArray[np.bool_]:
    """(n,) whether a byte of each string is marked; false for null."""
    found = np.zeros(len(strings), np.bool_)
    for first, data, ends in _blocks(strings):
        found[first + np.searchsorted(ends, np.flatnonzero(marks(data)), side="right") - 1] = True
    return found


def _blocks(strings: pl.Series) -> Iterator[tuple[int, Bytes, NDArray[np.int64]]]:
    """The number of a row, the bytes of some rows from there on, and where each starts among them and the last ends."""
    array = strings.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
    _, places, letters = array.buffers()
    if letters is None or not len(array):
        return
    ends = np.frombuffer(places, np.int64, len(array) + 1, offset=8 * array.offset)
    data = np.frombuffer(letters, np.uint8)
    cuts = np.searchsorted(ends, np.arange(ends[0], ends[-1], _BLOCK))
    cuts = np.unique(np.concatenate((cuts, [len(array)])))
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        yield start, data[ends[start] : ends[stop]], ends[start : stop + 1] - ends[start]

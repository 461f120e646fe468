"""Which strings of a column hold a byte of some kind: their UTF-8 is looked through a cacheful at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

_BLOCK = 1 << 17  # bytes

Bytes = NDArray[np.uint8]


def holding(strings: pl.Series, marks: Callable[[Bytes], NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """(n,) whether `marks` marks a byte of each string; false for null."""
    array = strings.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
    _, places, letters = array.buffers()
    found = np.zeros(len(array), np.bool_)
    if letters is None or not len(array):
        return found
    ends = np.frombuffer(places, np.int64, len(array) + 1, offset=8 * array.offset)
    data = np.frombuffer(letters, np.uint8)
    for start in range(int(ends[0]), int(ends[-1]), _BLOCK):
        at = np.flatnonzero(marks(data[start : min(start + _BLOCK, int(ends[-1]))]))
        found[np.searchsorted(ends, at + start, side="right") - 1] = True
    return found

"""Columns of many millions of strings: in Arrow's buffers, a few bytes beside the text, not one object each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar, overload

import numpy as np
import pyarrow as pa

CHUNK = 8192  # rows that are packed together; until then they are objects
T = TypeVar("T")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")


class Column(Generic[T]):
    """A sequence that grows at its end. Reads as a list does; `take` reads many rows at once."""

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._chunks: list[_Chunk] = []
        self._tail: list[T] = []
        self.extend(values)

    def append(self, value: T) -> None:
        self._tail.append(value)
        self._seal()

    def extend(self, values: Iterable[T]) -> None:
        rest = iter(values)
        while part := list(islice(rest, CHUNK)):  # another table's column is never unpacked at once
            self._tail += part
            self._seal()

    def _seal(self) -> None:
        if len(self._tail) >= CHUNK:
            self._chunks.append(_pack(self._tail[:CHUNK]))
            del self._tail[:CHUNK]

    def __iadd__(self, values: Iterable[T]) -> Column[T]:
        self.extend(values)
        return self

    def __len__(self) -> int:
        return len(self._chunks) * CHUNK + len(self._tail)

    def __iter__(self) -> Iterator[T]:
        for chunk in self._chunks:
            yield from chunk.all()
        yield from self._tail

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    @overload
    def __getitem__(self, place: int) -> T: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return self.take(range(*place.indices(len(self))))
        i = place + len(self) if place < 0 else place
        if not 0 <= i < len(self):
            raise IndexError(place)
        number, row = divmod(int(i), CHUNK)
        return self._chunks[number].one(row) if number < len(self._chunks) else self._tail[row]

    def take(self, rows: Sequence[int] | np.ndarray) -> list[T]:
        """The values of `rows`, in their order."""
        return [self[int(row)] for row in rows]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence | Column):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})" if len(self) < 32 else f"<{len(self)} rows>"

    @property
    def nbytes(self) -> int:
        """What the packed rows take in memory."""
        return sum(chunk.array.nbytes for chunk in self._chunks)


class _Chunk:
    """CHUNK values in one Arrow array; `kind` says how they are packed."""

    def __init__(self, array: Any, kind: str) -> None:
        self.array, self.kind = array, kind

    def _read(self, value: Any) -> Any:
        if self.kind == "hex":
            return value.hex()
        if self.kind == "single":
            return [value]
        return [] if self.kind == "empty" else value

    def one(self, row: int) -> Any:
        return self._read(self.array[row].as_py())

    def all(self) -> Iterator[Any]:
        return map(self._read, self.array.to_pylist())


def _pack(values: list[Any]) -> _Chunk:
    """Digests as bytes, lists of one string as strings, and what says nothing as nothing."""
    first = values[0]
    if isinstance(first, list):
        if not any(values):
            return _Chunk(pa.nulls(len(values)), "empty")
        if all(len(value) == 1 for value in values):
            return _Chunk(pa.array([value[0] for value in values], pa.string()), "single")
        return _Chunk(pa.array(values, pa.list_(pa.string())), "plain")
    if all(value is None for value in values):
        return _Chunk(pa.nulls(len(values)), "plain")
    if isinstance(first, str) and all(
        value is not None and len(value) == len(first) and _HEX.fullmatch(value) for value in values
    ):
        return _Chunk(pa.array([bytes.fromhex(v) for v in values], pa.binary(len(first) // 2)), "hex")
    return _Chunk(pa.array(values, pa.string()), "plain")

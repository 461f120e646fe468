"""Plain objects that all have the same keys in the same order, held in columns until somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import polars as pl


class Objects(Sequence[dict[str, Any]]):
    """A sequence of dicts: each row of `frame`, made anew whenever it is asked for.

    A null is a key whose value is None. The number of rows is held apart: a frame without columns loses it.
    """

    def __init__(self, frame: pl.DataFrame, rows: int) -> None:
        assert not frame.width or frame.height == rows
        self.frame, self._rows = frame, rows

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> Any:
        return _arrived, (self.frame.to_arrow(compat_level=pl.CompatLevel.oldest()), self._rows)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Objects: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | Objects:
        if isinstance(at, slice):
            assert at.step is None
            start, end, _ = at.indices(self._rows)
            return Objects(self.frame.slice(start, max(0, end - start)), max(0, end - start))
        if not -self._rows <= at < self._rows:
            raise IndexError(at)
        return self.frame.row(at, named=True) if self.frame.width else {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.frame.iter_rows(named=True) if self.frame.width else iter([{} for _ in range(self._rows)])

    def filter(self, keep: pl.Series) -> Objects:
        """Those for which the boolean series `keep` is true."""
        return Objects(self.frame.filter(keep) if self.frame.width else self.frame, int(keep.sum()))

    def names(self) -> list[str]:
        """The keys of each object."""
        return self.frame.columns if self._rows else []

    def values(self, name: str) -> list[Any]:
        """What `object.get(name)` gives for each."""
        return self.frame[name].to_list() if name in self.frame.columns else [None] * self._rows


def _arrived(table: Any, rows: int) -> Objects:
    return Objects(pl.DataFrame(table) if table.num_columns else pl.DataFrame(), rows)

"""What a corpus-level rule knows about all rows: gathered in a first pass, looked up in the second."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.records.batch import Batch


class LookUp(Protocol):
    """Supplies one column of a rule."""

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        """For a rule on texts: a value for each line of `texts` (row, text, is_text; row is a place in the batch).

        For a rule on rows: a value for each row of the batch; `texts` is empty.
        """
        ...


class Survey(LookUp):
    """A context manager, whose files go when it closes. Asked `add` for all batches, `finish` once, then `look_up`."""

    reads_input = True  # whether there is a first pass at all
    needs_images = False  # whether `add` and `look_up` read image_id

    def add(self, batch: Batch, texts: pl.DataFrame, standing: NDArray[np.bool_]) -> None:
        """A batch, which of its rows the condition and the per-query cap let pass, and their texts (row, text)."""

    def finish(self) -> None:
        """After the last batch of the first pass."""

    def rewind(self) -> None:
        """Before `look_up` is asked for all batches once more."""

    def found(self) -> pl.DataFrame | None:
        """PLAIN and COUNT of what is over the bound, for the report; None where there is no such thing."""
        return None

    def close(self) -> None:
        """Give memory and files back."""

    def __enter__(self) -> Survey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

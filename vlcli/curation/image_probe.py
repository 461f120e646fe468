"""Width and height from image headers, for rows whose source does not give them."""

from __future__ import annotations

from types import TracebackType

import polars as pl

from vlcli.records.batch import Batch


class HeaderSizes:
    """`sizes(batch)` for `Judge`; a context manager, which keeps the source that is being read open."""

    def __init__(self) -> None:
        from vlcli.images.resolve import ImageReader

        self._reader = ImageReader()  # the rows' references can be opened from the working directory

    def __enter__(self) -> HeaderSizes:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    def read(self, reference: str) -> bytes:
        """The bytes behind a reference."""
        return self._reader.read(reference)

    def __call__(self, batch: Batch) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
        """width and height of every row, null where no image can be read; and those rows, with why."""
        from vlcli.images.probe import probe

        widths: list[int | None] = []
        heights: list[int | None] = []
        bad: list[tuple[int, str]] = []
        references = zip(batch.frame["image"], batch.frame["image_bytes"], strict=True)
        for row, (reference, data) in enumerate(references):
            width = height = None
            try:
                if data is None and reference is None:
                    raise ValueError("no image, and no width and height")
                found = probe(self._reader.read(reference) if data is None else data)
                width, height = found.width, found.height
            except (ValueError, OSError) as error:
                bad.append((row, _cause(error, reference)))
            widths.append(width)
            heights.append(height)
        sizes = {"width": pl.Series(widths, dtype=pl.Int64()), "height": pl.Series(heights, dtype=pl.Int64())}
        return pl.DataFrame(sizes), bad


def _cause(error: Exception, reference: str | None) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (
        text
        if reference is None or reference in text or reference.startswith("data:")
        else f"{reference}: {text}"
    )

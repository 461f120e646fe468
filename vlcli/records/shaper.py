"""One columnar source's record batches to `Batch`es: names, types, references, bad rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from vlcli.errors import InputError
from vlcli.records import lineage
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.columns import Renames
from vlcli.records.embedded import is_binary
from vlcli.records.references import anchor

# (0-based row, cause, the row) of a bad row
OnBad = Callable[[int, str, dict[str, Any]], None]
_TEXT = (pl.String, pl.Categorical, pl.Enum)


@contextmanager
def damage(file: str) -> Iterator[None]:
    """What pyarrow and polars raise on damaged data, as InputError; errors of the disk (with errno) pass."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = error.filename or file
            raise
        raise InputError(" ".join(str(error).split()) or type(error).__name__, file=file) from error


def settle(schema: pa.Schema, renames: Renames, file: str) -> list[str]:
    """The names that the columns of a source have from here on. Raises InputError where two have one name."""
    if len(set(schema.names)) < len(schema.names):
        twice = next(n for n in schema.names if schema.names.count(n) > 1)
        raise InputError(f"two columns are named {twice!r}", file=file)
    return renames.names(schema.names, file)


def _holds_nul(table: pa.RecordBatch) -> bool:
    """Whether a NUL may stand in a string of the table: no column's letters are without one."""
    return any(_may_hold_nul(column) for column in table.columns)


def _may_hold_nul(column: pa.Array) -> bool:
    kind = column.type
    if pa.types.is_primitive(kind) or is_binary(kind):
        return False
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return True
    letters = column.buffers()[2]
    return letters is not None and letters.size > 0 and int(np.frombuffer(letters, np.uint8).min()) == 0


class Shaper:
    """One source's names (`settle`) and metadata; shapes record batch after record batch."""

    def __init__(
        self,
        names: list[str],
        metadata: Mapping[bytes, bytes] | None,
        *,
        file: str,
        folder: str,
        folder_label: str,
        embedded: bool,  # True: images that are at hand become references into `file`
    ) -> None:
        self.names = names
        self.file, self.folder, self.folder_label = file, folder, folder_label
        self.embedded = embedded
        self.lineage = lineage.from_metadata(metadata)

    def shape(self, table: pa.RecordBatch, first: int, has_image: pa.Array | None, on_bad: OnBad) -> Batch:
        """`table` has the columns of the schema, in order; its first row is row `first` of the file.

        `has_image` tells which rows have their image inside the file when the bytes were not read.
        """
        with damage(self.file):
            table.validate(full=True)
            columns = dict(zip(self.names, table.columns, strict=True))
            image, pixels, has_image = self._split_image(
                columns.pop("image", None), has_image, table.num_rows
            )
            frame = pl.DataFrame({name: pl.Series(name, pl.from_arrow(c)) for name, c in columns.items()})
        rows = table.num_rows
        if not columns:
            frame = pl.DataFrame(height=rows)
        bad: dict[int, str] = {}
        lines = pl.int_range(first, first + rows, eager=True)
        known: dict[str, pl.Series] = {}
        for name in ("id", "image_id", "query"):
            known[name] = self._string(name, frame, bad)
        known["text"], scalar = self._texts("text", frame, bad)
        known["text_candidates"], _ = self._texts("text_candidates", frame, bad)
        for name in ("width", "height"):
            known[name] = self._side(name, frame, bad)
        references = anchor(image, self.folder)
        if self.embedded and has_image is not None:
            places = pl.select(pl.format("{}#{}", pl.lit(self.file), lines)).to_series()
            references = places.zip_with(pl.Series(pl.from_arrow(has_image)), references)
        elif pixels is not None:
            # The bytes travel with the row; the path beside them names nothing that can be opened here.
            references = references.set(pixels.is_not_null(), None)
        known["image"] = references
        known |= {
            "line": lines,
            "text_is_scalar": pl.repeat(scalar, rows, eager=True),
            "image_bytes": pixels
            if pixels is not None
            else pl.repeat(None, rows, dtype=pl.Binary(), eager=True),
        }
        schema = COLUMNS | BOOKKEEPING
        typed = pl.DataFrame([known[name].cast(dtype).alias(name) for name, dtype in schema.items()])
        for name in COLUMNS if _holds_nul(table) else ():
            if typed.schema[name] == pl.String:
                self._mark(bad, typed[name].str.contains("\0", literal=True), f"a NUL character in {name}")
            elif typed.schema[name] == pl.List(pl.String):
                nul = typed.select(
                    pl.col(name).list.eval(pl.element().str.contains("\0", literal=True)).list.any()
                )
                self._mark(bad, nul.to_series(), f"a NUL character in {name}")
        rest = frame.drop([n for n in COLUMNS if n in frame.columns])
        batch = Batch(typed, rest, self.file, False, self.folder, self.folder_label, self.lineage)
        return self._divert(batch, frame, bad, on_bad) if bad else batch

    def _divert(self, batch: Batch, frame: pl.DataFrame, bad: dict[int, str], on_bad: OnBad) -> Batch:
        for index in sorted(bad):
            row = {n: v for n, v in frame.row(index, named=True).items() if v is not None}
            on_bad(int(batch.frame["line"][index]), bad[index], row)
        return batch.take(pl.Series([i not in bad for i in range(len(batch))], dtype=pl.Boolean()))

    def _split_image(
        self, column: Any, has_image: pa.Array | None, rows: int
    ) -> tuple[pl.Series, pl.Series | None, pa.Array | None]:
        """Paths, bytes if they were read, and which rows have bytes."""
        path, data = column, None
        if column is None or is_binary(column.type):
            path, data = pa.nulls(rows, pa.string()), column
        elif pa.types.is_struct(column.type):
            names = [field.name for field in column.type]
            path = pc.struct_field(column, "path") if "path" in names else pa.nulls(rows, pa.string())
            data = pc.struct_field(column, "bytes") if "bytes" in names else None
        paths = pl.Series("image", pl.from_arrow(path))
        if paths.dtype != pl.Null and not isinstance(paths.dtype, _TEXT):
            raise InputError(f"column image is {column.type}, neither a path nor an image", file=self.file)
        paths = paths.cast(pl.String())
        if data is None:
            return paths, None, has_image
        return paths, pl.Series("image_bytes", pl.from_arrow(data)).cast(pl.Binary()), data.is_valid()

    def _mark(self, bad: dict[int, str], wrong: pl.Series, cause: str) -> None:
        for index in wrong.fill_null(False).arg_true():
            bad.setdefault(index, cause)

    def _string(self, name: str, frame: pl.DataFrame, bad: dict[int, str]) -> pl.Series:
        if name not in frame.columns:
            return pl.repeat(None, frame.height, dtype=pl.String(), eager=True)
        column = frame[name]
        if (
            column.dtype == pl.Null
            or isinstance(column.dtype, _TEXT)
            or (name != "query" and column.dtype.is_integer())
        ):
            return column.cast(pl.String())
        raise InputError(f"column {name} is {column.dtype}, not text", file=self.file)

    def _texts(self, name: str, frame: pl.DataFrame, bad: dict[int, str]) -> tuple[pl.Series, bool]:
        if name not in frame.columns:
            return pl.repeat(None, frame.height, dtype=pl.List(pl.String()), eager=True), False
        column = frame[name]
        if isinstance(column.dtype, _TEXT):
            column = column.cast(pl.String())
            lists = frame.select(
                pl.when(pl.lit(column).is_not_null())
                .then(pl.concat_list(pl.lit(column)))
                .otherwise(None)
                .alias(name)
            ).to_series()
            return lists, True
        inner = column.dtype.inner if isinstance(column.dtype, pl.List | pl.Array) else None
        if column.dtype == pl.Null:
            return column.cast(pl.List(pl.String())), False
        if inner is None or not (inner == pl.Null or isinstance(inner, _TEXT)):
            raise InputError(f"column {name} is {column.dtype}, not text or lists of text", file=self.file)
        lists = column.cast(pl.List(pl.String()))
        has_null = (
            lists.to_frame(name).select(pl.col(name).list.eval(pl.element().is_null()).list.any()).to_series()
        )
        self._mark(bad, has_null, f"{name} holds null among its strings")
        return lists, False

    def _side(self, name: str, frame: pl.DataFrame, bad: dict[int, str]) -> pl.Series:
        if name not in frame.columns:
            return pl.repeat(None, frame.height, dtype=pl.Int64(), eager=True)
        column = frame[name]
        if column.dtype != pl.Null and not column.dtype.is_numeric():
            raise InputError(f"column {name} is {column.dtype}, not a number of pixels", file=self.file)
        if column.dtype.is_float():
            column = column.fill_nan(None)  # pandas' way to write a missing integer
        whole = column.cast(pl.Int64(), strict=False)
        wrong = column.is_not_null() & (
            whole.is_null() | (whole.cast(pl.Float64()) != column.cast(pl.Float64()))
        )
        self._mark(bad, wrong, f"{name} is not a whole number of pixels")
        return whole

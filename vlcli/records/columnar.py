"""Parquet and Arrow to batches. Pixels of a Parquet file stay in it: a row refers to them as `file.parquet#ROW`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlcli.errors import InputError
from vlcli.records import lineage
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.columns import Renames
from vlcli.records.embedded import image_column
from vlcli.records.references import anchor

MAX_ROWS = 8192
ROWS_WITH_PIXELS = 256  # a batch that carries images is small
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

# (0-based row, cause, the row) of a bad row
OnBad = Callable[[int, str, dict[str, Any]], None]
_TEXT = (pl.String, pl.Categorical, pl.Enum)


@contextmanager
def _damage(file: str) -> Iterator[None]:
    """What pyarrow and polars raise on damaged data, as InputError; errors of the disk (with errno) pass."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(" ".join(str(error).split()) or type(error).__name__, file=file) from error


class Shaper:
    """Turns the record batches of one source into `Batch`es: names, types, references, bad rows."""

    def __init__(
        self,
        schema: pa.Schema,
        *,
        file: str,
        folder: str,
        folder_label: str,
        renames: Renames,
        on_bad: OnBad,
        embedded: bool,  # True: images that are at hand become references into `file`
    ) -> None:
        if len(set(schema.names)) < len(schema.names):
            twice = next(n for n in schema.names if schema.names.count(n) > 1)
            raise InputError(f"two columns are named {twice!r}", file=file)
        self.names = renames.names(schema.names, file)
        self.file, self.folder, self.folder_label = file, folder, folder_label
        self.on_bad, self.embedded = on_bad, embedded
        self.lineage = lineage.from_metadata(schema.metadata)

    def shape(self, table: pa.RecordBatch, first: int, has_image: pa.Array | None) -> Batch:
        """`table` has the columns of the schema, in order; its first row is row `first` of the file.

        `has_image` tells which rows have their image inside the file when the bytes were not read.
        """
        with _damage(self.file):
            table.validate(full=True)
            columns = dict(zip(self.names, table.columns, strict=True))
            image, pixels, has_image = self._split_image(columns.pop("image", None), has_image)
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
        references = anchor(image.to_list(), self.folder)
        if self.embedded and has_image is not None:
            inside = has_image.to_pylist()
            references = [
                f"{self.file}#{first + i}" if is_inside else reference
                for i, (reference, is_inside) in enumerate(zip(references, inside, strict=True))
            ]
        elif pixels is not None:
            # The bytes travel with the row; the path beside them names nothing that can be opened here.
            references = [
                None if at_hand else r for r, at_hand in zip(references, pixels.is_not_null(), strict=True)
            ]
        known["image"] = pl.Series("image", references, pl.String())
        known |= {
            "line": lines,
            "text_is_scalar": pl.repeat(scalar, rows, eager=True),
            "image_bytes": pixels
            if pixels is not None
            else pl.repeat(None, rows, dtype=pl.Binary(), eager=True),
        }
        schema = COLUMNS | BOOKKEEPING
        typed = pl.DataFrame([known[name].cast(dtype).alias(name) for name, dtype in schema.items()])
        for name in COLUMNS:
            if typed.schema[name] == pl.String:
                self._mark(bad, typed[name].str.contains("\0", literal=True), f"a NUL character in {name}")
            elif typed.schema[name] == pl.List(pl.String):
                nul = typed.select(
                    pl.col(name).list.eval(pl.element().str.contains("\0", literal=True)).list.any()
                )
                self._mark(bad, nul.to_series(), f"a NUL character in {name}")
        rest = frame.drop([n for n in COLUMNS if n in frame.columns])
        batch = Batch(typed, rest, self.file, False, self.folder, self.folder_label, self.lineage)
        return self._divert(batch, frame, bad) if bad else batch

    def _divert(self, batch: Batch, frame: pl.DataFrame, bad: dict[int, str]) -> Batch:
        for index in sorted(bad):
            row = {n: v for n, v in frame.row(index, named=True).items() if v is not None}
            self.on_bad(int(batch.frame["line"][index]), bad[index], row)
        return batch.take(pl.Series([i not in bad for i in range(len(batch))], dtype=pl.Boolean()))

    def _split_image(
        self, column: Any, has_image: pa.Array | None
    ) -> tuple[pl.Series, pl.Series | None, pa.Array | None]:
        """Paths, bytes if they were read, and which rows have bytes."""
        empty = pl.Series("image", [], pl.String())
        if column is None:
            return (
                (
                    pl.repeat(None, len(has_image), dtype=pl.String(), eager=True)
                    if has_image is not None
                    else empty
                ),
                None,
                has_image,
            )
        kind = column.type
        if pa.types.is_struct(kind):
            names = [kind.field(i).name for i in range(kind.num_fields)]
            path = pc.struct_field(column, "path") if "path" in names else pa.nulls(len(column), pa.string())
            data = pc.struct_field(column, "bytes") if "bytes" in names else None
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
            path, data = pa.nulls(len(column), pa.string()), column
        else:
            path, data = column, None
        paths = pl.Series("image", pl.from_arrow(path))
        if paths.dtype == pl.Null or isinstance(paths.dtype, _TEXT):
            paths = paths.cast(pl.String())
        else:
            raise InputError(f"column image is {kind}, neither a path nor an image", file=self.file)
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


def read_parquet(
    path: str, *, image_bytes: bool, make: Callable[[pa.Schema], Shaper], file: str
) -> Iterator[Batch]:
    """Row groups in order, each in bounded record batches; of images only what `image_bytes` asks for is read."""
    with _damage(file):
        parquet = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    with parquet:
        schema = parquet.schema_arrow
        shaper = make(schema)
        image = schema.names[shaper.names.index("image")] if "image" in shaper.names else None
        pixels = image_column(schema) if image is not None else None
        if pixels is not None and pixels.split(".")[0] != image:
            pixels = None  # `image` is a column of paths; other bytes are just a column
        # An image column alone is read with its pixels: nothing else would say how many rows there are.
        columns = (_without_pixels(schema, image, pixels) or None) if pixels and not image_bytes else None
        first = 0
        for group in range(parquet.metadata.num_row_groups):
            has = _Presence(parquet, group, pixels) if pixels and columns is not None else None
            with _damage(file):
                tables = parquet.iter_batches(
                    batch_size=ROWS_WITH_PIXELS if pixels and image_bytes else MAX_ROWS,
                    row_groups=[group],
                    columns=columns,
                    use_threads=False,
                )
            while True:
                with _damage(file):
                    table = next(tables, None)
                if table is None:
                    break
                if columns is not None:
                    table = _in_order(table, schema)
                present = has.next(table.num_rows) if has else None
                yield shaper.shape(table, first, present)
                first += table.num_rows


def _without_pixels(schema: pa.Schema, image: str, pixels: str) -> list[str]:
    names = [name for name in schema.names if name != image]
    if pixels != image and schema.field(image).type.get_field_index("path") >= 0:
        names.append(f"{image}.path")
    return names


def _in_order(table: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """All columns of `schema` in its order; an image column of which nothing was read is null."""
    arrays = [
        table.column(name) if name in table.schema.names else pa.nulls(table.num_rows, pa.string())
        for name in schema.names
    ]
    return pa.RecordBatch.from_arrays(arrays, names=schema.names)


class _Presence:
    """Which rows of a row group have image bytes: from the statistics, or by reading the column when they are mixed."""

    def __init__(self, parquet: pq.ParquetFile, group: int, pixels: str) -> None:
        meta = parquet.metadata.row_group(group)
        chunk = next(c for i in range(meta.num_columns) if (c := meta.column(i)).path_in_schema == pixels)
        statistics = chunk.statistics
        nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
        self._all = True if nulls == 0 else False if nulls == meta.num_rows else None
        self._values: Iterator[bool] = iter(())
        if self._all is None:
            self._values = self._read(parquet, group, pixels)

    @staticmethod
    def _read(parquet: pq.ParquetFile, group: int, pixels: str) -> Iterator[bool]:
        for table in parquet.iter_batches(
            batch_size=ROWS_WITH_PIXELS, row_groups=[group], columns=[pixels], use_threads=False
        ):
            column = table.column(0)
            if pa.types.is_struct(column.type):
                column = pc.struct_field(column, "bytes")
            yield from column.is_valid().to_pylist()

    def next(self, rows: int) -> pa.Array:
        if self._all is not None:
            return pa.array([self._all] * rows, pa.bool_())
        return pa.array([next(self._values) for _ in range(rows)], pa.bool_())


class _Tail:
    """A stream for pyarrow that remembers its last bytes: the end mark is what tells a whole stream from a cut one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.last = b""
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.last = (self.last + data[-8:])[-8:]
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def tell(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


def read_arrow_stream(stream: Any, *, make: Callable[[pa.Schema], Shaper], file: str) -> Iterator[Batch]:
    """One IPC stream, or several after each other. A stream without its end mark raises InputError."""
    first = 0
    while stream.peek(1):
        tail = _Tail(stream)
        with _damage(file):
            reader = pa.ipc.open_stream(tail)
        shaper = make(reader.schema)
        while True:
            with _damage(file):
                try:
                    table = reader.read_next_batch()
                except StopIteration:
                    break
            yield from _slices(table, shaper, first)
            first += table.num_rows
        if tail.last != END_OF_STREAM:
            raise InputError(
                "the Arrow stream has no end mark",
                file=file,
                remedy="what wrote it died or the file was truncated",
            )


def read_arrow_file(path: str, *, make: Callable[[pa.Schema], Shaper], file: str) -> Iterator[Batch]:
    with _damage(file):
        reader = pa.ipc.open_file(pa.OSFile(path))
    shaper = make(reader.schema)
    first = 0
    for i in range(reader.num_record_batches):
        with _damage(file):
            table = reader.get_batch(i)
        yield from _slices(table, shaper, first)
        first += table.num_rows


def _slices(table: pa.RecordBatch, shaper: Shaper, first: int) -> Iterator[Batch]:
    for start in range(0, table.num_rows, MAX_ROWS):
        yield shaper.shape(table.slice(start, MAX_ROWS), first + start, None)

"""Parquet and Arrow, some rows at a time. Pixels stay in a Parquet file: rows refer to them as `file.parquet#ROW`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlcli.errors import InputError, UsageError
from vlcli.records.columns import Renames
from vlcli.records.embedded import holds_images, image_column
from vlcli.records.shaper import damage, settle

MAX_ROWS = 1 << 16
BATCH_BYTES = 32 << 20  # of a batch, about
ROWS_WITH_PIXELS = 256  # a batch that carries images is small
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a source as they stand there: what one process reads and another shapes."""

    table: pa.RecordBatch  # all columns of the source, in order; of an image column perhaps the paths alone
    first: int  # rows before these in the source
    metadata: Mapping[bytes, bytes] | None = None  # of the source's schema
    present: pa.Array | None = (
        None  # which rows have their image inside the file, where its bytes were not read
    )


def parquet_rows(
    path: str, *, image_bytes: bool, renames: Renames, file: str, groups: range | None = None, first: int = 0
) -> Iterator[Rows]:
    """Row groups in order (`groups` of them, whose first row is `first`), in bounded record batches.

    Pixels are read only if `image_bytes` asks.
    """
    with damage(file):
        parquet = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    with parquet:
        schema = parquet.schema_arrow
        names = settle(schema, renames, file)
        image = schema.names[names.index("image")] if "image" in names else None
        pixels = _pixels(schema, image, file)
        # An image column alone is read with its pixels: nothing else would say how many rows there are.
        columns = None
        if image is not None and pixels is not None and not image_bytes:
            columns = _without_pixels(schema, image, pixels) or None
        yield Rows(_empty(schema), first, schema.metadata)
        for group in groups if groups is not None else range(parquet.metadata.num_row_groups):
            with damage(file):
                has = _Presence(parquet, group, pixels) if pixels and columns is not None else None
                few = pixels and image_bytes
                tables = parquet.iter_batches(
                    batch_size=ROWS_WITH_PIXELS if few else _rows_at_once(parquet, group, pixels),
                    row_groups=[group],
                    columns=columns,
                    use_threads=False,
                )
            while True:
                with damage(file):
                    table = next(tables, None)
                if table is None:
                    break
                if columns is not None:
                    table = _in_order(table, schema)
                with damage(file):
                    present = has.next(table.num_rows) if has else None
                yield Rows(table, first, schema.metadata, present)
                first += table.num_rows


def _rows_at_once(parquet: pq.ParquetFile, group: int, pixels: str | None) -> int:
    """Rows of a batch without pixels: long texts make it small."""
    meta = parquet.metadata.row_group(group)
    chunks = [meta.column(i) for i in range(meta.num_columns)]
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema != pixels)
    return max(1, min(MAX_ROWS, BATCH_BYTES * meta.num_rows // max(1, size)))


def _pixels(schema: pa.Schema, image: str | None, file: str) -> str | None:
    """The dotted name of the bytes in the column that became `image`; None when that one holds paths."""
    if image is None or not holds_images(schema.field(image).type):
        return None
    pixels = image_column(schema)
    if pixels not in (image, f"{image}.bytes"):
        raise UsageError(
            f"{file}: several columns hold images, and a reference cannot say that it means {image!r}",
            remedy="name that column 'image' in the file",
        )
    return pixels


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
    """Which rows of a row group have image bytes: by the statistics, or by reading where these are mixed."""

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
    """A stream for pyarrow that remembers its last bytes: a whole stream ends in its mark."""

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


def arrow_stream_rows(stream: Any, *, file: str) -> Iterator[Rows]:
    """One IPC stream, or several after each other. A stream without its end mark raises InputError."""
    first = 0
    while stream.peek(1):
        tail = _Tail(stream)
        with damage(file):
            reader = pa.ipc.open_stream(tail)
        yield Rows(_empty(reader.schema), first, reader.schema.metadata)
        while True:
            with damage(file):
                try:
                    table = reader.read_next_batch()
                except StopIteration:
                    break
            yield from _slices(table, first)
            first += table.num_rows
        if tail.last != END_OF_STREAM:
            raise InputError(
                "the Arrow stream has no end mark",
                file=file,
                remedy="what wrote it died or the file was truncated",
            )


def arrow_file_rows(path: str, *, file: str) -> Iterator[Rows]:
    with damage(file):
        reader = pa.ipc.open_file(pa.OSFile(path))
    first = 0
    yield Rows(_empty(reader.schema), first, reader.schema.metadata)
    for i in range(reader.num_record_batches):
        with damage(file):
            table = reader.get_batch(i)
        yield from _slices(table, first)
        first += table.num_rows


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    """No rows: names and types are settled before the first row comes, or where none does."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], names=schema.names)


def _slices(table: pa.RecordBatch, first: int) -> Iterator[Rows]:
    rows = max(1, min(MAX_ROWS, BATCH_BYTES * table.num_rows // max(1, table.nbytes)))
    for start in range(0, table.num_rows, rows):
        yield Rows(table.slice(start, rows), first + start, table.schema.metadata)

"""Parquet, a row group at a time. Pixels stay in the file: rows refer to them as `file.parquet#ROW`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlcli.errors import UsageError
from vlcli.records.columnar import BATCH_BYTES, MAX_ROWS, Rows, empty_rows
from vlcli.records.columns import Renames
from vlcli.records.embedded import holds_images, image_column
from vlcli.records.shaper import damage, settle

ROWS_WITH_PIXELS = 256  # a batch that carries images is small


@dataclass(frozen=True)
class RowGroup:
    """A row group that nobody has read yet: whoever shapes its rows reads them, too."""

    path: str
    file: str  # as messages name it
    number: int
    first: int  # rows before it in the file
    rows: int
    size: int  # bytes in memory, about
    columns: tuple[str, ...] | None  # those that are read; None: all
    pixels: str | None  # the column that holds images
    few: bool  # whether these are read, so that few rows fill a batch

    @property
    def is_small(self) -> bool:
        return self.rows <= 4 * MAX_ROWS and self.size <= 2 * BATCH_BYTES and not self.few


class ParquetFile:
    """A file that is open; a context manager."""

    def __init__(self, path: str, file: str) -> None:
        self.path, self._name = path, file
        with damage(file):
            self._file = pq.ParquetFile(
                path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
            )
        self.schema: pa.Schema = self._file.schema_arrow

    def row_groups(
        self, *, image_bytes: bool, renames: Renames, groups: range | None = None, first: int = 0
    ) -> Iterator[RowGroup]:
        """All of them in order, or `groups`, whose first row is `first`. Pixels are read only if `image_bytes` asks."""
        schema = self.schema
        names = settle(schema, renames, self._name)
        image = schema.names[names.index("image")] if "image" in names else None
        pixels = _pixels(schema, image, self._name)
        # An image column alone is read with its pixels: nothing else would say how many rows there are.
        columns = None
        if image is not None and pixels is not None and not image_bytes:
            columns = tuple(_without_pixels(schema, image, pixels)) or None
        for number in groups if groups is not None else range(self._file.metadata.num_row_groups):
            meta = self._file.metadata.row_group(number)
            chunks = [meta.column(i) for i in range(meta.num_columns)]
            size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema != pixels)
            few = pixels is not None and image_bytes
            yield RowGroup(self.path, self._name, number, first, meta.num_rows, size, columns, pixels, few)
            first += meta.num_rows

    def read(self, group: RowGroup) -> Iterator[Rows]:
        """Its rows in bounded record batches, where long texts make them small."""
        at_once = max(1, min(MAX_ROWS, BATCH_BYTES * group.rows // max(1, group.size)))
        with damage(self._name):
            has = None
            if group.pixels is not None and group.columns is not None:
                has = _Presence(self._file, group.number, group.pixels)
            tables = self._file.iter_batches(
                batch_size=ROWS_WITH_PIXELS if group.few else at_once,
                row_groups=[group.number],
                columns=None if group.columns is None else list(group.columns),
                use_threads=False,
            )
        first = group.first
        while True:
            with damage(self._name):
                table = next(tables, None)
            if table is None:
                break
            if group.columns is not None:
                table = _in_order(table, self.schema)
            with damage(self._name):
                present = has.next(table.num_rows) if has else None
            yield Rows(table, first, self.schema.metadata, present)
            first += table.num_rows

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def parquet_rows(
    path: str, *, image_bytes: bool, renames: Renames, file: str, groups: range | None = None, first: int = 0
) -> Iterator[Rows | RowGroup]:
    """Row groups in order (`groups` of them, whose first row is `first`): small ones as they stand, to be read where
    they are shaped, others as bounded record batches."""
    with ParquetFile(path, file) as parquet:
        yield Rows(empty_rows(parquet.schema), first, parquet.schema.metadata)
        for group in parquet.row_groups(image_bytes=image_bytes, renames=renames, groups=groups, first=first):
            if group.is_small:
                yield group
            else:
                yield from parquet.read(group)


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

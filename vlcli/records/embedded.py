"""Images inside a Parquet file, by row: the bytes of an HF image struct or of a binary column."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from vlcli.errors import InputError, MissingImage

_CACHE_BYTES = 128 << 20  # row groups kept, in bytes
_WINDOW_ROWS = 64  # rows held of a row group too large to keep


def image_column(schema: Any) -> str | None:
    """The dotted name of the column that holds image bytes: `image` first, else the only candidate."""
    import pyarrow as pa

    found = {}
    for field in schema:
        if holds_images(field.type):
            found[field.name] = f"{field.name}.bytes" if pa.types.is_struct(field.type) else field.name
    if "image" in found:
        return found["image"]
    structs = [path for path in found.values() if path.endswith(".bytes")]
    candidates = structs or list(found.values())
    return candidates[0] if len(candidates) == 1 else None


def holds_images(kind: Any) -> bool:
    """Whether a column of this type may hold images: binary, or a struct with binary `bytes`."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)
    return is_binary(kind)


def is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


class ParquetImages:
    """Random access to the images of one Parquet file; memory is bounded, reading in order is cheap.

    Raises InputError for a file that is damaged, holds no image column, or changed since it was opened;
    MissingImage for a row that it does not have.
    """

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._stat = self._signature()
            # Pages are streamed rather than whole column chunks, which may be gigabytes.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise InputError(" ".join(str(error).split()), file=path) from error
        column = image_column(self._file.schema_arrow)
        if column is None:
            raise InputError("no single column of image bytes", file=path)
        self._column = column
        meta = self._file.metadata
        self._starts = [0]
        for group in range(meta.num_row_groups):
            self._starts.append(self._starts[-1] + meta.row_group(group).num_rows)
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0
        self._window: tuple[int, Any] = (-1, None)  # first row, values
        self._windows: Iterator[Any] = iter(())
        self._next_row = -1
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._starts[-1]

    def _signature(self) -> tuple[int, int]:
        stat = os.stat(self.path)
        return stat.st_size, stat.st_mtime_ns

    def get(self, row: int) -> bytes:
        """The bytes of a 0-based row."""
        with self._lock:
            if self._signature() != self._stat:
                raise InputError("the file has changed since it was opened", file=self.path)
            if not 0 <= row < len(self):
                raise MissingImage(f"no such row: the file has {len(self)}", file=self.path, row=row)
            value = self._value(row)
        if value is None:
            raise MissingImage("the row has no image bytes", file=self.path, row=row)
        return value

    def sha256(self, rows: list[int]) -> list[str | None]:
        """Hex digests of the images of these rows (ascending is fast); None where a row has none."""
        digests: list[str | None] = []
        with self._lock:
            if self._signature() != self._stat:
                raise InputError("the file has changed since it was opened", file=self.path)
            for row in rows:
                value = self._value(row)
                digests.append(None if value is None else hashlib.sha256(value).hexdigest())
        return digests

    def _value(self, row: int) -> bytes | None:
        import bisect

        import pyarrow as pa

        group = bisect.bisect_right(self._starts, row) - 1
        try:
            if group in self._cache:
                self._cache.move_to_end(group)
                return self._cache[group][row - self._starts[group]].as_py()
            if self._group_bytes(group) <= _CACHE_BYTES // 2:
                return self._whole(group)[row - self._starts[group]].as_py()
            return self._windowed(group, row)
        except (pa.ArrowException, OSError) as error:
            raise InputError(" ".join(str(error).split()), file=self.path, row=row) from error

    def _group_bytes(self, group: int) -> int:
        meta = self._file.metadata.row_group(group)
        chunks = (meta.column(i) for i in range(meta.num_columns))
        return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == self._column)

    def _values(self, column: Any) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column

    def _whole(self, group: int) -> Any:
        table = self._file.read_row_group(group, columns=[self._column], use_threads=False)
        values = self._values(table.column(0).combine_chunks())
        self._cache[group] = values
        self._cached_bytes += values.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return values

    def _windowed(self, group: int, row: int) -> bytes | None:
        first, values = self._window
        if (
            values is None
            or not first <= row
            or self._next_row > self._starts[group + 1]
            or first < self._starts[group]
        ):
            first = self._next_row = self._starts[group]
            self._windows = self._file.iter_batches(
                batch_size=_WINDOW_ROWS, row_groups=[group], columns=[self._column], use_threads=False
            )
            values = []
        while row >= first + len(values):
            first = self._next_row
            values = self._values(next(self._windows).column(0))
            self._next_row = first + len(values)
        self._window = (first, values)
        return values[row - first].as_py()

    def close(self) -> None:
        self._file.close()

"""Batches as Arrow tables of one schema, and the two columnar outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlcli.errors import InputError
from vlcli.records import lineage
from vlcli.records.batch import COLUMNS, Batch
from vlcli.records.encode import portable_references
from vlcli.records.objects import Objects
from vlcli.records.pipe import FdStream
from vlcli.records.references import Relocator

IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
_STRINGS = pa.large_list(pa.large_string())
_TYPES = {
    "id": pa.large_string(),
    "image": pa.large_string(),
    "image_id": pa.large_string(),
    "text": _STRINGS,
    "text_candidates": _STRINGS,
    "query": pa.large_string(),
    "width": pa.int64(),
    "height": pa.int64(),
}
assert list(_TYPES) == list(COLUMNS)
ROW_GROUP_ROWS = 1 << 16
ROW_GROUP_BYTES = 64 << 20


class Tabulator:
    """Gives every batch the schema of the first: known columns, then the others in the order they came.

    A later column or type that does not fit raises InputError, naming the column and the remedy.
    """

    def __init__(
        self,
        relocate: Relocator,
        embed_images: bool,
        read_image: Callable[[str], bytes] | None,
        step: Mapping[str, Any] | None,
    ) -> None:
        self._relocate, self._embed, self._read_image, self._step = relocate, embed_images, read_image, step
        self.schema: pa.Schema | None = None
        self._scalar_text = False

    def schema_or_default(self) -> pa.Schema:
        """The schema, which no batch may have settled."""
        return self.schema or self._settle(None, {})

    def _settle(self, batch: Batch | None, others: dict[str, Any]) -> pa.Schema:
        if batch is not None:
            with_text = batch.frame.filter(pl.col("text").is_not_null())["text_is_scalar"]
            self._scalar_text = len(with_text) > 0 and bool(with_text.all())
        types = dict(_TYPES)
        if self._scalar_text:
            types["text"] = pa.large_string()
        if self._embed:
            types["image"] = IMAGE
        fields = [pa.field(n, t) for n, t in types.items()] + [pa.field(n, a.type) for n, a in others.items()]
        chain = lineage.extend(batch.lineage if batch is not None else (), self._step)
        self.schema = pa.schema(fields, metadata=lineage.to_metadata(chain) or None)
        return self.schema

    def __call__(self, batch: Batch) -> pa.Table:
        """All rows of `batch`."""
        if self.schema is None:
            others = _first_others(batch)
            schema = self._settle(batch, others)
        else:
            schema = self.schema
            others = self._later_others(batch, schema)
        arrays = [
            self._known(batch, field) if field.name in _TYPES else others[field.name] for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _known(self, batch: Batch, field: pa.Field) -> pa.Array:
        if field.name == "image":
            return self._images(batch)
        column = batch.frame[field.name]
        if field.name == "text" and self._scalar_text:
            wrong = (column.is_not_null() & ~batch.frame["text_is_scalar"].fill_null(False)).arg_true()
            if len(wrong):
                raise _conflict("text", batch, int(batch.frame["line"][wrong[0]]), "a list after strings")
            column = column.list.first()
        return column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(field.type)

    def _images(self, batch: Batch) -> pa.Array:
        if not self._embed:
            moved = portable_references(batch, self._relocate)
            return moved.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
        references = self._relocate.all(batch.frame["image"], batch.folder).to_list()
        pixels = batch.frame["image_bytes"].to_list()
        if self._read_image is not None:
            pixels = [
                self._read_image(r) if d is None and r is not None else d
                for r, d in zip(batch.frame["image"].to_list(), pixels, strict=True)
            ]
        structs = [
            None if r is None and d is None else {"bytes": d, "path": None if d is not None else r}
            for r, d in zip(references, pixels, strict=True)
        ]
        return pa.array(structs, IMAGE)

    def _later_others(self, batch: Batch, schema: pa.Schema) -> dict[str, Any]:
        names = [name for name in schema.names if name not in _TYPES]
        if isinstance(batch.rest, pl.DataFrame):
            for name in batch.rest.columns:
                if name not in names:
                    raise _conflict(
                        name, batch, int(batch.frame["line"][0]), "a column that the first rows lack"
                    )
            arrays = {}
            for name in names:
                wanted = schema.field(name).type
                if name not in batch.rest.columns:
                    arrays[name] = pa.nulls(len(batch), wanted)
                    continue
                column = batch.rest[name].to_arrow(compat_level=pl.CompatLevel.oldest())
                try:
                    arrays[name] = column if column.type == wanted else column.cast(wanted)
                except pa.ArrowException:
                    found = f"{column.type} after {wanted}"
                    raise _conflict(name, batch, int(batch.frame["line"][0]), found) from None
            return arrays
        known = set(names)
        rows = batch.rest[:1] if isinstance(batch.rest, Objects) else batch.rest  # these all have the same
        for row, line in zip(rows, batch.frame["line"], strict=False):
            if new := row.keys() - known:
                raise _conflict(sorted(new)[0], batch, line, "a column that the first rows lack")
        return {name: self._later_column(batch, name, schema.field(name).type) for name in names}

    def _later_column(self, batch: Batch, name: str, wanted: pa.DataType) -> pa.Array:
        values = batch.values(name)
        try:
            found = pa.array(values)
            if _fits(found.type, wanted):
                return pa.array(values, wanted)
            cause = f"{found.type} after {wanted}"
        except (pa.ArrowException, OverflowError, TypeError):
            cause = f"values that are not all {wanted}"
        raise _conflict(name, batch, _culprit(batch, name, wanted), cause)


def _first_others(batch: Batch) -> dict[str, Any]:
    if isinstance(batch.rest, pl.DataFrame):
        level = pl.CompatLevel.oldest()
        return {name: batch.rest[name].to_arrow(compat_level=level) for name in batch.rest.columns}
    if isinstance(batch.rest, Objects):
        names = dict.fromkeys(batch.rest.names())
    else:
        names = dict.fromkeys(name for row in batch.rest for name in row)
    arrays = {}
    for name in names:
        values = batch.values(name)
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            cause = (
                "values of several types"
                if not isinstance(error, OverflowError)
                else "a number beyond 64 bits"
            )
            raise _conflict(name, batch, int(batch.frame["line"][0]), cause) from None
    return arrays


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value of a column inferred as `found` can stand in one of type `wanted` without loss."""
    if found == wanted or pa.types.is_null(found):
        return True
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        return all(
            wanted.get_field_index(f.name) >= 0 and _fits(f.type, wanted.field(f.name).type) for f in found
        )
    if _is_list(found) and _is_list(wanted):
        return _fits(found.value_type, wanted.value_type)
    return pa.types.is_integer(found) and pa.types.is_floating(wanted)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _culprit(batch: Batch, name: str, wanted: pa.DataType) -> int:
    """The line of the first row whose value alone does not fit."""
    rows: Any = batch.rest
    for row, line in zip(rows, batch.frame["line"], strict=True):
        try:
            if not _fits(pa.array([row.get(name)]).type, wanted):
                return int(line)
        except (pa.ArrowException, OverflowError, TypeError):
            return int(line)
    return int(batch.frame["line"][0])


def _conflict(name: str, batch: Batch, line: int, cause: str) -> InputError:
    place: dict[str, Any] = {"line": line} if batch.text_lines else {"row": line}
    return InputError(
        f"column {name!r}: {cause}; a table has one type a column, settled by its first rows",
        file=batch.file,
        remedy="write JSON lines (--to jsonl), or make the column alike in all rows",
        **place,
    )


class ArrowEncoder:
    """An IPC stream; it has its end mark only after `finish`."""

    def __init__(self, out: Any, tabulate: Tabulator) -> None:
        self._out, self._tabulate = out, tabulate
        self._writer: Any = None

    def _open(self, schema: pa.Schema) -> Any:
        if self._writer is None:
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._out, mode="w"), schema)
        return self._writer

    def write(self, batch: Batch) -> None:
        if len(batch):
            table = self._tabulate(batch)
            self._open(table.schema).write_table(table)

    def finish(self) -> None:
        self._open(self._tabulate.schema_or_default()).close()

    def abort(self) -> None:
        # A message that never comes: no reader takes this for an end. (pyarrow's writer must not be closed.)
        if not isinstance(self._out, FdStream) or self._out.has_room():
            self._out.write(b"\xff\xff\xff\xff")


class ParquetEncoder:
    """Row groups of at most 65,536 rows or 64 MiB, zstd, with page checksums."""

    def __init__(self, out: Any, tabulate: Tabulator) -> None:
        self._out, self._tabulate = out, tabulate
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._thread = ThreadPoolExecutor(1, "parquet")
        self._written: Future[None] | None = None

    def write(self, batch: Batch) -> None:
        if not len(batch):
            return
        # Groups are cut by what rows hold, so that the batches in which they came do not show.
        table = self._tabulate(batch)
        weights = np.cumsum(_weights(batch, table))
        start = 0
        while start < table.num_rows:
            before = int(weights[start - 1]) if start else 0
            full = int(np.searchsorted(weights, ROW_GROUP_BYTES - self._bytes + before)) + 1
            end = min(full, start + ROW_GROUP_ROWS - self._rows, table.num_rows)
            self._pending.append(table.slice(start, end - start))
            self._rows += end - start
            self._bytes += int(weights[end - 1]) - before
            if self._rows == ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
                self._flush()
            start = end

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._out, self._tabulate.schema_or_default(), compression="zstd", write_page_checksum=True
            )
        self._wait()
        if self._pending:
            self._written = self._thread.submit(_write_group, self._writer, list(self._pending))
            self._pending.clear()
            self._rows = self._bytes = 0

    def _wait(self) -> None:
        """A row group is compressed while the rows of the next come."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def finish(self) -> None:
        self._flush()
        self._wait()
        self._thread.shutdown()
        assert self._writer is not None
        self._writer.close()

    def abort(self) -> None:
        self._pending.clear()  # the file never gets its name
        self._thread.shutdown()


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    table = pa.concat_tables(tables).combine_chunks()
    writer.write_table(table, row_group_size=table.num_rows)


def _weights(batch: Batch, table: pa.Table) -> NDArray[np.int64]:
    """(rows,) bytes of each row's images and texts."""
    texts = batch.frame.select(pl.col("text").list.eval(pl.element().str.len_bytes()).list.sum())
    weights = texts.to_series().fill_null(0).cast(pl.Int64()).to_numpy().copy()
    if table.schema.field("image").type == IMAGE:
        lengths = pc.binary_length(pc.struct_field(table["image"].combine_chunks(), "bytes"))
        weights += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return weights

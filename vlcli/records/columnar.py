"""Rows of a table as they stand in their source, and Arrow, some of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from vlcli.errors import InputError
from vlcli.records.shaper import damage

MAX_ROWS = 1 << 16
BATCH_BYTES = 32 << 20  # of a batch, about
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

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def size(self) -> int:
        """In bytes."""
        return int(self.table.nbytes)


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
        yield Rows(empty_rows(reader.schema), first, reader.schema.metadata)
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
    yield Rows(empty_rows(reader.schema), first, reader.schema.metadata)
    for i in range(reader.num_record_batches):
        with damage(file):
            table = reader.get_batch(i)
        yield from _slices(table, first)
        first += table.num_rows


def empty_rows(schema: pa.Schema) -> pa.RecordBatch:
    """No rows: names and types are settled before the first row comes, or where none does."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], names=schema.names)


def _slices(table: pa.RecordBatch, first: int) -> Iterator[Rows]:
    rows = max(1, min(MAX_ROWS, BATCH_BYTES * table.num_rows // max(1, table.nbytes)))
    for start in range(0, table.num_rows, rows):
        yield Rows(table.slice(start, rows), first + start, table.schema.metadata)

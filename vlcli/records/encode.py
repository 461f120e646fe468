"""Rows as lines of JSON, and compression by file name."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import orjson
import polars as pl

from vlcli.records.batch import Batch
from vlcli.records.json_columns import can_be_joined, json_objects, to_bytes
from vlcli.records.references import Relocator

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


def _plain(value: Any) -> Any:
    """What JSON has no type for: bytes in base64, decimals and durations as text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return str(value)


def json_line(row: dict[str, Any]) -> bytes:
    """One object and its line end."""
    try:
        return orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # whole numbers beyond 64 bits, very deep nesting
        return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_plain).encode() + b"\n"


def data_url(image: bytes) -> str:
    """`data:image/…;base64,…` of an image file's bytes."""
    kind = next((name for magic, name in _MAGIC if image.startswith(magic)), "")
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "webp"
    elif image[4:12] in (b"ftypavif", b"ftypavis"):
        kind = "avif"
    media = f"image/{kind}" if kind else "application/octet-stream"
    return f"data:{media};base64,{base64.b64encode(image).decode()}"


def portable_references(batch: Batch, relocate: Relocator) -> pl.Series:
    """The `image` column for a reader elsewhere; bytes without a file behind them become `data:`."""
    moved = relocate.all(batch.frame["image"], batch.folder)
    pixels = batch.frame["image_bytes"]
    rows = (moved.is_null() & pixels.is_not_null()).arg_true()
    if not len(rows):
        return moved
    return moved.clone().scatter(rows, [data_url(data) for data in pixels.gather(rows)])


def json_lines(batch: Batch, relocate: Relocator) -> bytes:
    """`json_line` of each of `portable_rows`."""
    objects = portable_objects(batch, relocate)
    if objects is None:
        return b"".join(map(json_line, portable_rows(batch, relocate)))
    return to_bytes(objects + "\n")


def portable_objects(batch: Batch, relocate: Relocator) -> pl.Series | None:
    """The same without line ends, as strings; None for a batch that has to be written row by row."""
    if not can_be_joined(batch):
        return None
    return json_objects(batch.with_columns(portable_references(batch, relocate)))


def portable_rows(batch: Batch, relocate: Relocator) -> Iterator[dict[str, Any]]:
    """The rows as plain objects with their references rewritten."""
    return batch.with_columns(portable_references(batch, relocate)).rows()


@contextmanager
def compressed(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """`file` behind gzip or zstd where `name` ends in .gz or .zst; equal content gives equal bytes."""
    if name.endswith(".gz"):
        packed: Any = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
        with packed:
            yield packed
    elif name.endswith(".zst"):
        import zstandard

        writer: Any = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
            file, closefd=False
        )
        yield writer
        writer.close()
    else:
        yield file

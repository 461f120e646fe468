"""Open what stands in a directory of shards: tars, Parquet sidecars, JSON objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from vlcli.errors import InputError

Path_ = str | os.PathLike[str]


def open_tar(path: Path_) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_sidecar(path: Path_, columns: list[str] | None = None) -> pa.Table:
    """A shard's Parquet sidecar with its page checksums verified; columns that it does not have are left
    out.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            return file.read([c for c in columns if c in names] if columns is not None else None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"not a whole Parquet file ({' '.join(str(error).split())})", file=str(path)
        ) from None


def sidecar_metadata(path: Path_) -> dict[bytes, bytes]:
    """The key-value metadata of a sidecar's footer."""
    try:
        return pq.read_metadata(path).metadata or {}
    except pa.ArrowException as error:
        raise InputError(
            f"not a whole Parquet file ({' '.join(str(error).split())})", file=str(path)
        ) from None


def read_json(path: Path_) -> dict[str, Any]:
    """A JSON object from a file; InputError when it is anything else."""
    try:
        value = orjson.loads(Path(path).read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON ({error})", file=str(path)) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", file=str(path))
    return value

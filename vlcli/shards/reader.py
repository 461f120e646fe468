"""Read shards: by offset from a scan of the headers, or one sample after the other; a cut shard is an
error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from vlcli.errors import InputError
from vlcli.shards.layout import FOREIGN_IMAGE_EXTENSIONS, SIZES, split_member, stats_of
from vlcli.shards.tar import TarDamage, walk

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class ShardIndex:
    """Where each sample of one tar lies: `spans[ext][i]` = (offset, size) of sample i's member, int64 (n,
    2).
    """

    path: str
    keys: list[str]
    spans: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def image_extension(self) -> str | None:
        return next((ext for ext in FOREIGN_IMAGE_EXTENSIONS if ext in self.spans), None)


@dataclass(frozen=True)
class Sample:
    key: str
    members: dict[str, bytes]  # extension → bytes

    @property
    def image(self) -> bytes:
        """The image's bytes; KeyError when the sample has none."""
        return self.members[next((ext for ext in FOREIGN_IMAGE_EXTENSIONS if ext in self.members), "jpg")]


def open_tar(path: Path_) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _grouped(path: Path_, fd: int) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """(key, {extension: (offset, size)}) for every sample of the open tar, in order.

    Raises InputError when the archive is damaged, a key comes back after another one, or a member is there
    twice.
    """
    seen: set[str] = set()
    key, members = "", dict[str, tuple[int, int]]()
    try:
        for member in walk(fd):
            parts = split_member(member.name)
            if parts is None or member.kind == "directory":
                continue
            if member.kind != "file":
                raise InputError(f"member {member.name} is a {member.kind}", file=str(path))
            if parts[0] != key:
                if members:
                    yield key, members
                key, members = parts[0], {}
                if key in seen:
                    raise InputError(f"members of sample {key} do not stand together", file=str(path))
                seen.add(key)
            if parts[1] in members:
                raise InputError(f"member {member.name} is there twice", file=str(path))
            members[parts[1]] = (member.data, member.size)
    except TarDamage as damage:
        raise InputError(
            str(damage), file=str(path), remedy="run 'vlcli check' on it, and make the shard again"
        ) from None
    if members:
        yield key, members


def read_index(path: Path_) -> ShardIndex:
    """Scan the headers of a tar; every sample must have the same extensions. Raises InputError, OSError."""
    fd = open_tar(path)
    try:
        groups = list(_grouped(path, fd))
    finally:
        os.close(fd)
    extensions = sorted(groups[0][1]) if groups else []
    for key, members in groups:
        if sorted(members) != extensions:
            raise InputError(
                f"sample {key} has {', '.join(sorted(members))}; the others have {', '.join(extensions)}",
                file=str(path),
            )
    spans = {ext: np.array([members[ext] for _, members in groups], np.int64) for ext in extensions}
    return ShardIndex(str(path), [key for key, _ in groups], spans)


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


def expected_samples(path: Path_) -> tuple[int, str] | None:
    """How many samples a tar should have, and which file says so: its stats, else sizes.json beside it,
    else None.
    """
    try:
        stats = stats_of(path)
        if stats.exists():
            return int(read_json(stats)["successes"]), stats.name
        sizes = Path(path).with_name(SIZES)
        if sizes.exists():
            value = read_json(sizes).get(Path(path).name)
            return None if value is None else (int(value), sizes.name)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"no sample count in it ({error!r})", file=str(stats)) from None
    return None


def read_json(path: Path_) -> dict[str, Any]:
    """A JSON object from a file; InputError when it is anything else."""
    try:
        value = orjson.loads(Path(path).read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON ({error})", file=str(path)) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", file=str(path))
    return value


def verify_count(path: Path_, samples: int) -> None:
    """InputError unless the tar's number of samples is the one its stats or sizes.json record."""
    expected = expected_samples(path)
    if expected is not None and expected[0] != samples:
        raise InputError(
            f"{samples} samples, but {expected[1]} says {expected[0]}",
            file=str(path),
            remedy="run 'vlcli check' on it, and make the shard again",
        )


def iterate(path: Path_) -> Iterator[Sample]:
    """The samples of one tar in order, their bytes read as they come; the count is verified at the end.

    Raises InputError where webdataset would stop without a word: a tar that is cut, or shorter than its stats
    say.
    """
    fd = open_tar(path)
    try:
        count = 0
        for key, spans in _grouped(path, fd):
            count += 1
            yield Sample(key, {ext: os.pread(fd, size, offset) for ext, (offset, size) in spans.items()})
        verify_count(path, count)
    finally:
        os.close(fd)

"""From an image reference to the bytes of the image file."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, MissingImage
from vlcli.images.tsv import TsvIndex
from vlcli.records.embedded import ParquetImages
from vlcli.records.references import is_relative, is_url, split_container

_OPEN_FILES = 32  # Parquet files, tars and tables kept open
MAX_BYTES = 1 << 30  # of one image file


class ImageReader:
    """Reads `path`, `file.parquet#ROW`, `shard.tar#MEMBER`, `images.tsv#ID` and `data:…;base64,…`.

    `root`: where relative references start (default: the working directory). Row groups and tar indices are
    kept, so reading in order is cheap and reading at random is possible. Threads may share one; a pickled
    copy (a worker's) opens its own files. Raises InputError for everything that keeps a reference from being
    read: MissingImage where its container is sound and lacks this one image.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = root
        self._open: OrderedDict[str, ParquetImages | TarIndex | TsvIndex] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, reference: str) -> bytes:
        """The bytes that the reference names."""
        if reference.startswith("data:"):
            return _data_url(reference)
        if is_url(reference):
            raise InputError(
                f"{reference}: URLs are never fetched",
                remedy="download the images first, with img2dataset for instance",
            )
        if "\0" in reference or not reference:
            raise InputError(f"{reference!r} is not a path")
        if self.root is not None and is_relative(reference):
            reference = os.path.join(self.root, reference)
        split = split_container(reference)
        if split is None:
            return _file(reference)
        path, fragment = split
        container = self._container(path)
        if isinstance(container, TarIndex | TsvIndex):
            return container.get(fragment)
        if not (fragment.isascii() and fragment.isdecimal()):
            raise MissingImage(f"{fragment!r} after # is not a row number", file=path)
        return container.get(int(fragment))

    def _container(self, path: str) -> ParquetImages | TarIndex | TsvIndex:
        with self._lock:
            found = self._open.get(path)
            if found is None:
                _regular(path)
                found = self._open[path] = _opened(path)
                while len(self._open) > _OPEN_FILES:
                    self._open.popitem(last=False)  # closes when no thread reads from it any more
            self._open.move_to_end(path)
            return found

    def close(self) -> None:
        with self._lock:
            for container in self._open.values():
                container.close()
            self._open.clear()

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]


def _opened(path: str) -> ParquetImages | TarIndex | TsvIndex:
    with open(path, "rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet:
        return ParquetImages(path)
    return TsvIndex(path) if path.lower().endswith(".tsv") else TarIndex(path)


class TarIndex:
    """The regular members of a tar by name, found once by walking its headers; contents are read by offset.

    Links are never followed, and a name that leads out of the archive is refused.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 - kept until close
        self._members: dict[str, tuple[int, int]] = {}
        self._links: set[str] = set()
        self._stat = _signature(os.fstat(self._file.fileno()))
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    if member.isreg() and not member.sparse:
                        self._members[member.name.removeprefix("./")] = (member.offset_data, member.size)
                    elif not member.isdir():
                        self._links.add(member.name.removeprefix("./"))
                    tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all headers otherwise
        except (tarfile.TarError, OSError) as error:
            self._file.close()
            raise InputError(f"not a readable tar ({error})", file=path) from error

    def get(self, name: str) -> bytes:
        """The bytes of a member."""
        name = name.removeprefix("./")
        if name.startswith("/") or ".." in name.split("/"):
            raise MissingImage(f"member name {name!r} leads out of the archive", file=self._path)
        if name in self._links:
            raise MissingImage(
                f"member {name!r} is a link or special file, which is never followed", file=self._path
            )
        if name not in self._members:
            raise MissingImage(f"no member {name!r}", file=self._path)
        try:
            changed = _signature(os.stat(self._path)) != self._stat
        except OSError:
            changed = True
        if changed:
            raise InputError("the file has changed since it was opened", file=self._path)
        offset, size = self._members[name]
        if size > MAX_BYTES:
            raise MissingImage(f"member {name!r} has {size} bytes, more than any image", file=self._path)
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise InputError(f"member {name!r} is cut", file=self._path)
        return data

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


def _signature(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _regular(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(error.strerror or "cannot be opened", file=path) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file", file=path)


def _file(path: str) -> bytes:
    _regular(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", file=path) from error
    if data[:4] == b"PAR1":
        raise MissingImage(
            "a Parquet file, not an image", file=path, remedy=f"name one of its rows: {path}#ROW (from 0)"
        )
    if len(data) > MAX_BYTES:
        raise InputError(f"more than {MAX_BYTES >> 20} MiB: not an image", file=path)
    return data


def _data_url(reference: str) -> bytes:
    header, comma, content = reference.partition(",")
    shown = header[:60]
    if not comma or not header.lower().endswith(";base64"):
        raise InputError(f"{shown}…: only base64 data are read")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{shown}…: damaged base64 ({error})") from error

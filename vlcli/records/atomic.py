"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from vlcli.errors import UsageError


class NamedFile(io.FileIO):
    """A file whose failing writes say which file it was; the operating system does not."""

    def __init__(self, fd: int, shown: str) -> None:
        super().__init__(fd, "wb")
        self._shown = shown

    def write(self, data: Any) -> int:
        with naming(self._shown):
            return super().write(data)


@contextmanager
def naming(shown: str) -> Iterator[None]:
    """Give an OSError without a file name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = shown
        raise


def is_special(path: str | os.PathLike[str]) -> bool:
    """A device, a named pipe or `/dev/fd/N`: written in place, never replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """Raises UsageError when something stands at `path` already."""
    if os.path.lexists(path):
        raise UsageError(f"{os.fspath(path)} exists", remedy="--force replaces it")


def check_place(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Raises UsageError where no file of this name can be written, or only over one that stands there."""
    if is_special(path):
        return
    if os.path.isdir(path):
        raise UsageError(f"{os.fspath(path)} is a directory")
    if not force:
        refuse_existing(path)
    check_folder(os.path.dirname(path) or ".")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises UsageError for a folder that cannot be made, because something above it is a file."""
    above = os.fspath(path)
    while above and not os.path.lexists(above):
        above = os.path.dirname(above)
    if above and not os.path.isdir(above):
        raise UsageError(f"{above}: not a directory")


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` when the block ends well, and leaves nothing behind otherwise.

    It is written beside its place, flushed to the disk and renamed; missing parent directories are made.
    Raises UsageError before anything is written when `path` exists and `force` is False, or is a directory.
    """
    shown = os.fspath(path)
    if is_special(path):
        with io.BufferedWriter(NamedFile(os.open(path, os.O_WRONLY | os.O_CLOEXEC), shown)) as device:
            yield device
        return
    check_place(path, force=force)
    final = os.path.realpath(path)  # through a symbolic link, its target is replaced and not the link
    folder, name = os.path.split(final)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(8)}.tmp")
    try:  # from here on: a signal may come before `open` has told what it made
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with io.BufferedWriter(NamedFile(fd, shown)) as file:
            yield file
            file.flush()
            with naming(shown):
                os.fsync(fd)
        if force:
            os.replace(temporary, final)
        else:
            _create_once(temporary, final)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def _create_once(temporary: str, final: str) -> None:
    """Rename that cannot replace what another process has put there in the meantime."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise UsageError(f"{final} has appeared meanwhile", remedy="--force replaces it") from None
    except OSError:  # a file system without hard links
        refuse_existing(final)
        os.replace(temporary, final)
    else:
        os.unlink(temporary)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename durable where the file system allows it."""
    with suppress(OSError):
        handle = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: str | os.PathLike[str] | Path, obj: Any, *, force: bool = False) -> None:
    """`obj` as indented JSON with a final newline."""
    with atomic_file(path, force=force) as file:
        file.write(orjson.dumps(obj, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


@contextmanager
def atomic_directory(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """An empty directory that takes the name `path` when the block ends well, and leaves nothing behind otherwise.

    Files in it are flushed to the disk before. With `force` a directory that stands there is replaced as a whole.
    Raises UsageError before anything is made when `path` exists and `force` is False, or is no directory.
    """
    final = Path(os.path.realpath(path))
    if not force:
        refuse_existing(path)
    elif final.exists() and not final.is_dir():
        raise UsageError(f"{os.fspath(path)} is no directory")
    check_folder(final.parent)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (
        final.with_name(f".{final.name[:200]}.{secrets.token_hex(8)}.{end}") for end in ("tmp", "old")
    )
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        sync_folder(temporary)
        if final.exists():
            if not force:
                raise UsageError(f"{os.fspath(path)} has appeared meanwhile", remedy="--force replaces it")
            os.replace(final, old)
        os.replace(temporary, final)
    except BaseException:
        if old.exists() and not final.exists():
            os.replace(old, final)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(final.parent)

"""Where rows come from: paths, globs, directories, stdin; opened, decompressed, recognised."""

from __future__ import annotations

import atexit
import glob
import io
import os
import re
import secrets
import select
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from vlcli.errors import InputError, UsageError
from vlcli.records.atomic import NamedFile, naming
from vlcli.records.pipe import WAIT

FORMATS = ("jsonl", "parquet", "arrow")
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow")
STDIN = "<stdin>"
_TABLES = tuple(f".{kind}{packed}" for kind in ("csv", "tsv") for packed in ("", ".gz", ".zst"))
_LOOKS_LIKE_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|$)").match
_ZSTD = (
    b"\x28\xb5\x2f\xfd",
    *(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16)),
)  # frame, skippable frames
_spooled: dict[str, str] = {}  # temporary file -> what messages call it


@dataclass(frozen=True)
class Source:
    """One input. `path` is None for stdin; `folder` is where relative references in it start."""

    name: str
    path: str | None
    folder: str


def sources(inputs: Sequence[str]) -> list[Source]:
    """The files that the arguments name, in the order given; those of a directory or glob are sorted."""
    found: list[Source] = []
    for item in inputs or ["-"]:
        if item == "-":
            if any(s.path is None for s in found):
                raise UsageError("stdin is named twice")
            found.append(Source(STDIN, None, ""))
        elif os.path.isdir(item):
            names = sorted(n for n in os.listdir(item) if n.endswith(SUFFIXES) and not n.startswith("."))
            if not names:
                raise UsageError(f"{item}: no {', '.join('*' + s for s in SUFFIXES)} in this directory")
            found.extend(_file(os.path.join(item, name)) for name in names)
        elif os.path.exists(item):
            found.append(_file(item))
        elif any(c in item for c in "*?["):
            paths = sorted(p for p in glob.glob(item, recursive=True) if not os.path.isdir(p))
            if not paths:
                raise UsageError(f"{item}: no file matches")
            found.extend(map(_file, paths))
        else:
            raise UsageError(f"{item}: no such file")
    return found


def _file(path: str) -> Source:
    # What stands in a pipe (`<(…)`, a named pipe, the spooled stdin) has no folder of its own.
    placeless = path in _spooled or not os.path.isfile(path)
    return Source(_spooled.get(path, path), path, "" if placeless else os.path.dirname(path))


def repeatable(inputs: Sequence[str]) -> Sequence[str]:
    """The inputs, fit to be read twice: a pipe is copied once to a temporary file, removed at exit."""
    result: list[str] = []
    for source in sources(inputs):
        if source.path is not None and (source.path in _spooled or os.path.isfile(source.path)):
            result.append(source.path)
            continue
        # Named before it is made: a signal between the two leaves nothing behind.
        spool = os.path.join(tempfile.gettempdir(), f"vlcli-{secrets.token_hex(8)}.spool")
        _spooled[spool] = source.name
        atexit.register(_remove, spool)
        handle = os.open(spool, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with io.BufferedWriter(NamedFile(handle, spool)) as out, _raw_bytes(source) as stream:
            shutil.copyfileobj(stream, out, 1 << 20)
        result.append(spool)
    return result


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _raw_bytes(source: Source) -> BinaryIO:
    if source.path is not None:
        if not stat.S_ISFIFO(os.stat(source.path).st_mode):
            return open(source.path, "rb")
        # Opening a named pipe waits for its writer, and so does the first `select` where Linux lets us through.
        waiting = os.O_NONBLOCK if sys.platform == "linux" else 0
        return _Patient(open(os.open(source.path, os.O_RDONLY | waiting), "rb", buffering=0), own=True)  # type: ignore[return-value]
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("no input: stdin is closed", remedy="name a file")
    if sys.stdin.isatty():
        raise UsageError("no input: stdin is a terminal", remedy="name a file or pipe rows in")
    return _Patient(sys.stdin.buffer)  # type: ignore[return-value]


class _Patient(io.RawIOBase):
    """A pipe, or another's stream, which closing this one leaves open.

    It is read when there is something to read: a signal that comes just before a read that blocks would wait
    for the next byte, which an idle pipe never brings. Between two waits Python sees it.
    """

    def __init__(self, stream: Any, *, own: bool = False) -> None:
        self._stream, self._own = stream, own
        try:
            self._fd: int | None = stream.fileno()
        except OSError:  # what stands for stdin in a test
            self._fd = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._fd is None:
            return self._stream.readinto(buffer)
        while not select.select([self._fd], [], [], WAIT)[0]:
            pass
        return os.readv(self._fd, [buffer])

    def close(self) -> None:
        if self._own and not self.closed:
            self._stream.close()
        super().close()


class _Joined(io.RawIOBase):
    """`head`, then what `read(n)` gives; errors of the decompressor become damaged input."""

    def __init__(
        self, head: bytes, read: Callable[[int], bytes], close: Callable[[], None], name: str
    ) -> None:
        self._head, self._read, self._close_source, self._name = head, read, close, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)]
        if data:
            self._head = self._head[len(data) :]
        else:
            data = self._get(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _get(self, size: int) -> bytes:
        try:
            with naming(self._name):
                return self._read(size)
        except OSError as error:
            if error.errno is not None:  # the disk's; pyarrow's decompressors give no number
                raise
            cause = " ".join(str(error).split())
            raise InputError(f"compressed data are damaged or cut ({cause})", file=self._name) from error

    def peek(self, size: int) -> bytes:
        """The first `size` bytes, or fewer at the end, which stay to be read."""
        while len(self._head) < size and (piece := self._get(size - len(self._head))):
            self._head += piece
        return self._head[:size]

    def close(self) -> None:
        if not self.closed:
            self._close_source()
        super().close()


@dataclass
class Opened:
    """A source being read, decompressed; `kind` is jsonl, parquet, arrow (a stream) or arrow-file."""

    source: Source
    stream: io.BufferedReader
    kind: str
    compressed: bool

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stream.close()


def open_source(source: Source, format: str | None = None) -> Opened:
    """Open, decompress and recognise; `format` overrides what the first bytes say.

    Raises InputError for damaged compression or an empty file whose name promises another format.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown input format {format!r}", remedy=f"choose one of {', '.join(FORMATS)}")
    raw: Any = io.BufferedReader(_raw_bytes(source), 1 << 16)
    with naming(source.name):
        head = raw.read(8)
    if not head and source.name.endswith((".parquet", ".arrow", ".gz", ".zst")):
        raise InputError("the file is empty", file=source.name)
    compressed = head[:2] == b"\x1f\x8b" or head[:4] in _ZSTD
    if compressed:
        import pyarrow as pa

        codec = "gzip" if head[:2] == b"\x1f\x8b" else "zstd"
        packed = _Joined(head, raw.read, raw.close, source.name)
        inner = pa.CompressedInputStream(pa.PythonFile(io.BufferedReader(packed, 1 << 20), mode="r"), codec)
        joined = _Joined(b"", inner.read, raw.close, source.name)
        head = joined.peek(8)
    else:
        joined = _Joined(head, raw.read1, raw.close, source.name)
    stream: Any = io.BufferedReader(joined, 1 << 18)
    kind = _kind(head)
    if format == "arrow" and kind not in ("arrow", "arrow-file"):
        raise InputError("not Arrow IPC", file=source.name)
    if format == "parquet" and kind != "parquet":
        raise InputError("not Parquet", file=source.name)
    if format is None and kind == "jsonl" and source.name.endswith(_TABLES) and not _LOOKS_LIKE_JSON(head):
        raw.close()
        raise InputError("CSV is not read", file=source.name, remedy="convert it to JSONL or Parquet first")
    return Opened(source, stream, "jsonl" if format == "jsonl" else kind, compressed)


def _kind(head: bytes) -> str:
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1":
        return "arrow-file"
    return "arrow" if head[:4] == b"\xff\xff\xff\xff" else "jsonl"

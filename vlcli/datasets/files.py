"""The files of a data set: found by name below what the user gives, and read with their lines numbered."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import Any, BinaryIO

import orjson

from vlcli.errors import InputError, UsageError

DEPTH = 8  # folders below a directory that is given; links that go round in circles end here
BOM = b"\xef\xbb\xbf"

CUT = (EOFError, zlib.error, gzip.BadGzipFile)
DAMAGED = "compressed data are damaged or cut"


class Files:
    """All files at `paths` (files, or directories with what is below them), by name. Raises UsageError for a path
    that is not there.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._folders: dict[str, str] = {}  # name → folder of the first file of that name
        self._further: dict[str, list[str]] = {}
        for path in paths:
            if os.path.isdir(path):
                self._walk(path, 0)
            elif os.path.exists(path):
                self._add(os.path.basename(path), os.path.dirname(path))
            else:
                raise UsageError(f"{path}: no such file")

    def _walk(self, folder: str, depth: int) -> None:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if not entry.is_dir():
                self._add(entry.name, folder)
        if depth < DEPTH:
            for entry in found:
                if entry.is_dir() and not entry.name.startswith("."):
                    self._walk(os.path.join(folder, entry.name), depth + 1)

    def _add(self, name: str, folder: str) -> None:
        if name.startswith("._"):  # what macOS puts beside every file of an archive
            return
        if name in self._folders:
            self._further.setdefault(name, []).append(folder)
        else:
            self._folders[name] = folder

    def __len__(self) -> int:
        return len(self._folders)

    def named(self, name: str) -> str | None:
        """The first file of that name."""
        folder = self._folders.get(name)
        return None if folder is None else os.path.join(folder, name)

    def matching(self, pattern: str) -> str | None:
        """The first file whose last parts match `pattern` (`TextData/seg.*test.caption.txt`)."""
        parts = pattern.split("/")
        names = [parts[-1]]
        if re.search(r"[*?\[]", parts[-1]):
            name_matches = re.compile(translate(parts[-1])).match
            names = sorted(name for name in self._folders if name_matches(name))
        whole = re.compile(translate(pattern)).match
        for name in names:
            if name not in self._folders:
                continue
            for folder in (self._folders[name], *self._further.get(name, ())):
                path = os.path.join(folder, name)
                if whole("/".join(path.split("/")[-len(parts) :])):
                    return path
        return None

    def first(self, patterns: Sequence[str]) -> str | None:
        """The file of the first pattern that has one."""
        return next((path for pattern in patterns if (path := self.matching(pattern)) is not None), None)

    def shown(self) -> str:
        return " ".join(self.paths)


def lines(path: str, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of UTF-8, perhaps gzipped; blank lines only where they are asked for.

    Raises InputError naming the line that cannot be read.
    """
    with _opened(path) as file:
        number = 0
        try:
            for number, raw in enumerate(file, start=1):
                line = _decoded(raw.removeprefix(BOM) if number == 1 else raw, path, number).rstrip("\r\n")
                if blank or line.strip():
                    yield number, line
        except CUT as error:
            raise InputError(f"{DAMAGED} ({error})", file=path, line=number + 1) from error


def _opened(path: str) -> BinaryIO:
    try:
        file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise InputError(error.strerror or "cannot be opened", file=path) from error
    if file.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    return file


def _decoded(raw: bytes, path: str, number: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start + 1})", file=path, line=number) from None


def json_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of a file with one a line. Raises InputError naming the line."""
    for number, line in lines(path):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"not JSON: {_cause(error)}", file=path, line=number) from None
        if not isinstance(found, dict):
            raise InputError("not a JSON object", file=path, line=number)
        yield number, found


def json_document(path: str) -> Any:
    """A file that is one JSON value. Raises InputError naming the line and the column where it ends to be one."""
    with _opened(path) as file:
        try:
            content = file.read().removeprefix(BOM)
        except CUT as error:
            raise InputError(f"{DAMAGED} ({error})", file=path) from error
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON: {_cause(error)}", file=path, line=error.lineno) from None


def _cause(error: orjson.JSONDecodeError) -> str:
    return f"{error.msg.split(': line ')[0]}, column {error.colno}"


def csv_rows(path: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, values) of a CSV with that header. Raises InputError for another one, or a row of another
    length.
    """
    text = io.StringIO("".join(line + "\n" for _, line in lines(path, blank=True)))
    reader = csv.reader(text)
    if next(reader, None) != list(columns):
        raise InputError(f"its columns are not {','.join(columns)}", file=path, line=1)
    for row in reader:
        if not row:
            continue
        if len(row) != len(columns):
            cause = f"{len(row)} values for {len(columns)} columns"
            raise InputError(cause, file=path, line=reader.line_num)
        yield reader.line_num, row


def field(
    row: Any, name: str, kind: type | tuple[type, ...], path: str, line: int | None, what: str = ""
) -> Any:
    """`row[name]` of that type. Raises InputError where there is none."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        cause = f"no {name}" if value is None else f"{name} is not {_KINDS.get(kind, 'what it should be')}"
        raise InputError(f"{what}: {cause}" if what else cause, file=path, line=line)
    return value


_KINDS: dict[Any, str] = {
    str: "a string",
    list: "a list",
    int: "a whole number",
    (int, str): "a number or a string",
}

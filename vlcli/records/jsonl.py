"""Lines of JSON to batches: every row arrives, or its line is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson
import polars as pl

from vlcli.errors import InputError
from vlcli.records.alike import read_alike
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.columns import KNOWN, BadValue, Renames, has_nul, take_known
from vlcli.records.references import anchor

BLOCK = 8 << 20  # bytes read at a time; a batch is what one block holds
MAX_ROWS = 1 << 16  # rows of a batch at most
MAX_LINE = 256 << 20  # no caption is that long: what has no line ends is not JSONL
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
BOM = b"\xef\xbb\xbf"

# (line, cause, raw line or parsed row) of a bad row
OnBad = Callable[[int, str, "bytes | dict[str, Any]"], None]


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a source as they stand there: what one process reads and another parses."""

    data: bytes  # joined by line ends, without the last one
    before: int  # lines before these in the source
    terminated: bool = True  # whether the last of them has its end


def blocks(stream: BinaryIO, *, file: str, before: int = 0) -> Iterator[Lines]:
    """All lines, a few megabytes at a time. `before` is the number of lines that came before this stream.

    Raises InputError for a line that is longer than any row can be.
    """
    pending: list[bytes] = []
    size, first = 0, not before
    while block := stream.read(BLOCK):
        if first:
            block, first = block.removeprefix(BOM), False
        cut = block.rfind(b"\n")
        if cut < 0:
            pending.append(block)
            size += len(block)
            if size > MAX_LINE:
                raise InputError(f"a line of more than {MAX_LINE >> 20} MiB: not JSON lines", file=file)
            continue
        pending.append(block[:cut])
        whole = b"".join(pending)
        yield Lines(whole, before)
        before += whole.count(b"\n") + 1
        pending = [block[cut + 1 :]]
        size = len(pending[0])
    tail = b"".join(pending)
    if tail:
        yield Lines(tail, before, terminated=False)


def parse(
    piece: Lines, *, file: str, folder: str, folder_label: str, renames: Renames, on_bad: OnBad
) -> Iterator[Batch]:
    """Batches of at most MAX_ROWS rows. Blank lines are no rows.

    An unterminated last line that does not parse raises InputError whatever `on_bad` does: its producer died.
    """
    whole = read_alike(
        piece.data, piece.before, file=file, folder=folder, folder_label=folder_label, renames=renames
    )
    if whole is not None:
        for start in range(0, len(whole), MAX_ROWS):
            yield whole.slice(start, MAX_ROWS)
        return
    lines, number = piece.data.split(b"\n"), piece.before
    long_numbers = _LONG_NUMBER.search(piece.data) is not None
    for start in range(0, len(lines), MAX_ROWS):
        part = lines[start : start + MAX_ROWS]
        yield _batch(
            part, number, piece.terminated, long_numbers, file, folder, folder_label, renames, on_bad
        )
        number += len(part)


def _parse(line: bytes, long_numbers: bool = True) -> dict[str, Any]:
    """One object. Raises BadValue with the cause."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadValue(_why(line, error)) from None
    if not isinstance(row, dict):
        raise BadValue("not a JSON object")
    if long_numbers and _LONG_NUMBER.search(line):
        row = json.loads(line)  # whole numbers beyond 64 bits keep every digit
    return row


def _why(line: bytes, error: orjson.JSONDecodeError) -> str:
    if b"\0" in line:
        return "not JSON: a NUL byte"
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 (byte {wrong.start + 1})"
    if not line.lstrip().startswith(b"{"):
        return "not a JSON object"
    return f"not JSON: {error.msg.split(': line ')[0]}, column {error.colno}"


def _batch(
    lines: list[bytes],
    before: int,
    terminated: bool,
    long_numbers: bool,
    file: str,
    folder: str,
    folder_label: str,
    renames: Renames,
    on_bad: OnBad,
) -> Batch:
    known: list[list[Any]] = []
    scalars: list[bool] = []
    numbers: list[int] = []
    rest: list[dict[str, Any]] = []
    for number, line in enumerate(lines, before + 1):
        if not line or line.isspace():
            continue
        try:
            row = _parse(line, long_numbers)
        except BadValue as cause:
            if not terminated and not _is_json(line):
                raise InputError(
                    f"the last line is cut ({cause})",
                    file=file,
                    line=number,
                    remedy="what wrote it died or the file was truncated",
                ) from None
            on_bad(number, str(cause), line)
            continue
        try:
            row = renames.row(row, f"{file}:{number}")
            values, scalar = take_known(row)
            if b"\\u0000" in line and has_nul(values):
                raise BadValue("a NUL character in a known column")
        except BadValue as cause:
            on_bad(number, str(cause), _parse(line))
            continue
        known.append(values)
        scalars.append(scalar)
        numbers.append(number)
        rest.append(row)
    columns: dict[str, Any] = dict(zip(KNOWN, zip(*known, strict=True), strict=True)) if known else {}
    if known:
        columns["image"] = anchor(pl.Series("image", columns["image"], pl.String()), folder)
    columns |= {"line": numbers, "text_is_scalar": scalars}
    schema = COLUMNS | BOOKKEEPING
    frame = pl.DataFrame(
        [_series(name, columns.get(name, [None] * len(numbers)), dtype) for name, dtype in schema.items()]
    )
    return Batch(frame, rest, file, True, folder, folder_label)


def _series(name: str, values: Sequence[Any] | pl.Series, dtype: Any) -> pl.Series:
    if isinstance(values, pl.Series):
        return values
    if not isinstance(dtype, pl.List):
        return pl.Series(name, values, dtype)
    import pyarrow as pa

    # polars makes a Series of every list before it joins them: many times slower.
    return pl.Series(name, pa.array(values, pa.large_list(pa.large_string())), dtype)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True

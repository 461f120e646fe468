"""Lines of JSON whose objects are flat and alike, read in columns: many times faster than line by line.

Whatever could differ from what reading line by line gives is left to that: `read_alike` then returns None.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.json
from numpy.typing import NDArray

from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.columns import KNOWN, PUBLIC_NAMES, Renames
from vlcli.records.objects import Objects
from vlcli.records.references import anchor

_STRINGS = pa.list_(pa.string())
_EXACT = 2.0**53  # doubles below it tell whole numbers apart
_LOOK_AT = 64  # rows that may have null in a column before one shows its type


class _Doubt(Exception):
    """These lines are not certain to come out the same."""


class _Plan(NamedTuple):
    known: dict[str, str]  # known column -> key in the file
    others: dict[str, str]  # name of another column -> key in the file, in the order of the first row
    types: dict[str, pa.DataType]  # of each key


def read_alike(
    data: bytes, before: int, *, file: str, folder: str, folder_label: str, renames: Renames
) -> Batch | None:
    """All rows of `data` (lines without the last line end) as one batch, whose `rest` is `Objects`.

    None where they are not objects of the same keys and types, or where there is any doubt.
    """
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A)
    rows = len(ends) + 1
    # Strings of JSON hold no line end, so a brace after one opens an object that cannot be inside another, since
    # no column has objects: with a brace at each line's start and as many objects as lines, each line is one.
    if not _opens(data, ends) or b"\\u0000" in data:
        return None
    try:
        plan = _plan(data, f"{file}:{before + 1}", renames)
        columns = _columns(data, rows, plan)
        known = {name: _known(name, columns[key]) for name, key in plan.known.items()}
        for name, publics in PUBLIC_NAMES.items():
            # A row without the known column takes another public name for it; null does not, and looks the same.
            if name in known and known[name].null_count() and any(p in plan.others for p in publics):
                raise _Doubt
        others = {name: columns[key] for name, key in plan.others.items()}
        rest = pl.DataFrame([pl.Series(name, pl.from_arrow(column)) for name, column in others.items()])
        if len(others) > 1 or any(column.null_count for column in others.values()):
            _check_keys(data, ends, list(plan.others.values()))
        _check_floats(data, plan, columns)
    except (_Doubt, pa.ArrowException, orjson.JSONDecodeError):
        return None
    if "image" in known:
        known["image"] = anchor(known["image"], folder)
    text = columns.get(plan.known.get("text", ""))
    is_scalar = text is not None and pa.types.is_string(text.type)
    known["line"] = pl.int_range(before + 1, before + 1 + rows, eager=True)
    known["text_is_scalar"] = (
        known["text"].is_not_null() if is_scalar else pl.repeat(False, rows, dtype=pl.Boolean(), eager=True)
    )
    frame = pl.DataFrame(
        [
            known[name].alias(name)
            if name in known
            else pl.Series(name, [None], dtype).new_from_index(0, rows)
            for name, dtype in (COLUMNS | BOOKKEEPING).items()
        ]
    )
    return Batch(frame, Objects(rest, rows), file, True, folder, folder_label)


def _plan(data: bytes, place: str, renames: Renames) -> _Plan:
    """By the first row; the next ones tell the type of what is null there."""
    first = orjson.loads(_first_line(data))
    keys = list(first)
    names = renames.names(keys, place)
    known = {name: key for name, key in zip(names, keys, strict=True) if name in KNOWN}
    others = {name: key for name, key in zip(names, keys, strict=True) if name not in KNOWN}
    types = {key: _known_type(name, first[key]) for name, key in known.items()}
    unsettled = [key for key in others.values() if first[key] is None]
    if unsettled:
        for line in data.split(b"\n", _LOOK_AT)[1:_LOOK_AT]:
            row = orjson.loads(line)
            for key in unsettled:
                if first[key] is None and isinstance(row, dict):
                    first[key] = row.get(key)
    types |= {key: _type(first[key]) for key in others.values()}
    for name in KNOWN:  # a known column that the first row lacks may come later under its own name
        moves = renames.renames
        if name not in known and name not in moves and name not in moves.values():
            known[name] = name
            types[name] = _known_type(name, None)
    return _Plan(known, others, types)


def _first_line(data: bytes) -> bytes:
    end = data.find(b"\n")
    return data if end < 0 else data[:end]


def _known_type(name: str, value: Any) -> pa.DataType:
    if name in ("text", "text_candidates"):
        if value is None:
            return pa.string() if name == "text" else _STRINGS
        if isinstance(value, str | list):
            return pa.string() if isinstance(value, str) else _STRINGS
    elif name in ("width", "height"):
        if value is None or type(value) in (int, float):
            return pa.float64()  # takes whole numbers, too
    elif value is None or isinstance(value, str):
        return pa.string()
    elif name in ("id", "image_id") and type(value) is int:
        return pa.int64()
    raise _Doubt


def _type(value: Any) -> pa.DataType:
    """Of a column whose first value is this."""
    for kind, found in ((str, pa.string()), (bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if isinstance(value, kind):
            return found
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return _STRINGS
    raise _Doubt


def _columns(data: bytes, rows: int, plan: _Plan) -> dict[str, pa.Array]:
    """By their keys. pyarrow converts nothing here except whole numbers to floats, and refuses other keys."""
    schema = pa.schema(list(plan.types.items()))
    table = pyarrow.json.read_json(
        pa.BufferReader(data),
        pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        pyarrow.json.ParseOptions(
            explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior="error"
        ),
    )
    if table.num_rows != rows or table.schema.types != schema.types:
        raise _Doubt
    table.validate(full=True)  # UTF-8
    return {name: column.combine_chunks() for name, column in zip(schema.names, table.columns, strict=True)}


def _known(name: str, column: pa.Array) -> pl.Series:
    """In its type. Raises _Doubt for what makes a row bad."""
    if pa.types.is_list(column.type):
        if column.flatten().null_count:
            raise _Doubt
        return pl.Series(name, column.cast(pa.large_list(pa.large_string())))
    if name in ("text", "text_candidates"):
        is_there = column.is_valid().to_numpy(zero_copy_only=False)
        offsets = np.concatenate(([0], np.cumsum(is_there)))
        mask = pa.array(~is_there) if column.null_count else None
        texts = column.drop_null().cast(pa.large_string())
        return pl.Series(name, pa.LargeListArray.from_arrays(pa.array(offsets), texts, mask=mask))
    if name in ("width", "height"):
        sides = column.drop_null().to_numpy()
        if not ((np.abs(sides) < _EXACT) & (sides == np.floor(sides))).all():
            raise _Doubt
        return pl.Series(name, column.cast(pa.int64()))
    return pl.Series(name, column.cast(pa.large_string()))


def _opens(data: bytes, ends: NDArray[np.int64]) -> bool:
    """Whether an object opens at the start of each line."""
    if not data.startswith(b"{") or data.endswith(b"\n"):
        return False
    return bool((np.frombuffer(data, np.uint8)[ends + 1] == 0x7B).all())


def _check_keys(data: bytes, ends: NDArray[np.int64], keys: list[str]) -> None:
    """Raises _Doubt unless every line has all these keys in this order.

    A quotation mark inside a string is escaped, so `"key":` stands nowhere but where the key does.
    """
    if any(not _is_plain(key) for key in keys):
        raise _Doubt
    offsets = np.concatenate(([0], ends + 1, [len(data)])).astype(np.int64)
    lines = pa.LargeStringArray.from_buffers(len(ends) + 1, pa.py_buffer(offsets), pa.py_buffer(data))
    places = pl.DataFrame({"line": pl.Series(lines)}).select(
        pl.col("line").str.find(f'"{key}":', literal=True).alias(str(i)) for i, key in enumerate(keys)
    )
    if any(column.null_count() for column in places):
        raise _Doubt
    for earlier, later in zip(places.columns, places.columns[1:], strict=False):
        if not (places[earlier] < places[later]).all():
            raise _Doubt


def _is_plain(key: str) -> bool:
    return orjson.dumps(key) == f'"{key}"'.encode()


def _check_floats(data: bytes, plan: _Plan, columns: dict[str, pa.Array]) -> None:
    """Raises _Doubt unless all values of other float columns were written as such: 1 is not 1.0."""
    for key in plan.others.values():
        if not pa.types.is_floating(columns[key].type):
            continue
        values = columns[key].to_numpy(zero_copy_only=False)  # null: NaN
        if columns[key].null_count:
            values = values[columns[key].is_valid().to_numpy(zero_copy_only=False)]
        if not np.isfinite(values).all():
            raise _Doubt
        values = columns[key].to_numpy(zero_copy_only=False)
        whole = np.flatnonzero(values == np.floor(values))
        if not len(whole):
            continue
        lines = data.split(b"\n")
        for row in whole.tolist():
            if type(orjson.loads(lines[row])[key]) is not float or abs(values[row]) >= _EXACT:
                raise _Doubt

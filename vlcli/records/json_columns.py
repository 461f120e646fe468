"""The rows of a batch as JSON, a column at a time: byte for byte what `json_line` makes of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from vlcli.records.batch import COLUMNS, Batch
from vlcli.records.digest import is_special
from vlcli.records.objects import Objects

_WHOLE = {pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64}
_FLAT = _WHOLE | {pl.String, pl.Boolean, pl.Null, pl.Float32, pl.Float64}
# orjson's escapes; the characters that have none of their own are written in hexadecimal digits.
_ESCAPES = {chr(c): orjson.dumps(chr(c)).decode()[1:-1] for c in [*range(0x20), 0x22, 0x5C]}


class _Field(NamedTuple):
    key: str  # as JSON
    values: pl.Series  # as JSON; null where the row has no such key
    mark: str = ""  # what stands around each value: nothing, or the quotation marks of a string


def can_be_joined(batch: Batch) -> bool:
    """Whether `json_objects` may do: not for rows that came one by one, nor for types that only `json_line` knows."""
    rest = _others(batch)
    return (
        rest is not None
        and len(batch) > 0
        and not any(name in COLUMNS for name in rest.columns)
        and all(_is_common(dtype) for dtype in rest.dtypes)
    )


def _others(batch: Batch) -> pl.DataFrame | None:
    if isinstance(batch.rest, Objects):
        return batch.rest.frame
    return batch.rest if isinstance(batch.rest, pl.DataFrame) else None


def json_objects(batch: Batch) -> pl.Series | None:
    """One object a row, without line ends, with the keys in the order of `Batch.rows`.

    None where a list holds a null.
    """
    rest = _others(batch)
    assert rest is not None
    fields: list[_Field] = []
    for name in COLUMNS:
        column = batch.frame[name]
        if column.null_count() < len(column):
            if column.dtype == pl.String() and not column.null_count():
                fields.append(_Field(f'"{name}"', _escaped(column), '"'))
                continue
            values = _texts(batch) if name == "text" else _values(column)
            if values is None:
                return None
            fields.append(_Field(f'"{name}"', values))
    for column in rest:
        key = orjson.dumps(column.name).decode()
        if column.dtype == pl.String() and not column.null_count():
            fields.append(_Field(key, _escaped(column), '"'))
            continue
        values = _values(column)
        if values is None:
            return None
        fields.append(_Field(key, values.fill_null("null")))
    if not fields:
        return pl.Series(["{}"]).new_from_index(0, len(batch))
    return _joined(fields)


def _joined(fields: list[_Field]) -> pl.Series:
    # Commas stand on the side of a field that all rows have; without one, before each, and the first is cut off.
    certain = next((i for i, field in enumerate(fields) if not field.values.null_count()), -1)
    parts: list[Any] = []
    for i, (key, values, mark) in enumerate(fields):
        before, after = (f"{key}:{mark}", f"{mark},") if i < certain else (f",{key}:{mark}", mark)
        if i == certain:
            before = f"{key}:{mark}"
        if not values.null_count():
            parts += [pl.lit(before), pl.col(str(i)), pl.lit(after)]
        else:
            parts.append(pl.concat_str(pl.lit(before), pl.col(str(i)), pl.lit(after)).fill_null(""))
    frame = pl.DataFrame([field.values.alias(str(i)) for i, field in enumerate(fields)])
    if certain >= 0:
        return frame.select(json=pl.concat_str(pl.lit("{"), *parts, pl.lit("}"))).to_series()
    inside = pl.concat_str(*parts).str.strip_prefix(",")
    return frame.select(json=pl.concat_str(pl.lit("{"), inside, pl.lit("}"))).to_series()


def to_bytes(lines: pl.Series) -> bytes:
    """All of them after each other."""
    array = lines.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
    _, places, letters = array.buffers()
    if letters is None or not len(array):
        return b""
    ends = np.frombuffer(places, np.int64, len(array) + 1, offset=8 * array.offset)
    return bytes(memoryview(letters)[ends[0] : ends[-1]])


def _texts(batch: Batch) -> pl.Series | None:
    """A string where it came as one; null where there is no text."""
    column = batch.frame["text"]
    scalar = batch.frame["text_is_scalar"].fill_null(False)
    first = column.list.first()
    if not scalar.any():
        return _lists(column)
    if (first.is_null() & (column.list.len() > 0)).any():
        return None
    single = _values(first.fill_null(""))
    lists = None if scalar.all() else _lists(column)
    if single is None or (lists is None and not scalar.all()):
        return None
    strings = pl.when(column.is_null()).then(None).otherwise(single)
    if lists is None:
        return pl.select(strings).to_series()
    return pl.select(pl.when(scalar).then(strings).otherwise(lists)).to_series()


def _is_common(dtype: pl.DataType) -> bool:
    """Whether `_values` knows the type."""
    return dtype in _FLAT or dtype == pl.List(pl.String())


def _values(column: pl.Series) -> pl.Series | None:
    """As JSON, null for null. None where a list holds a null."""
    dtype = column.dtype
    if isinstance(dtype, pl.List):
        return _lists(column)
    if dtype == pl.String():
        return _quoted(_escaped(column))
    if dtype in (pl.Float32, pl.Float64):
        numbers = column.cast(pl.Float64()).to_list()
        return pl.Series(orjson.dumps(numbers)[1:-1].decode().split(","), dtype=pl.String())
    return column.cast(pl.String())


def _quoted(escaped: pl.Series) -> pl.Series:
    return escaped.to_frame("s").select(pl.concat_str(pl.lit('"'), pl.col("s"), pl.lit('"'))).to_series()


def _lists(column: pl.Series) -> pl.Series | None:
    flat = column.explode(empty_as_null=False, keep_nulls=False)
    if flat.null_count():
        return None
    if is_special(flat).any():
        lengths = column.list.len().fill_null(0).to_numpy()
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        texts = _escaped(flat).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
        mask = pa.array(column.is_null().to_numpy()) if column.null_count() else None
        column = pl.Series(pa.LargeListArray.from_arrays(pa.array(offsets), texts, mask=mask))
    count = pl.col("t").list.len()
    joined = pl.concat_str(pl.lit('["'), pl.col("t").list.join('","'), pl.lit('"]'))
    shown = pl.when(count == 0).then(pl.lit("[]")).otherwise(joined)
    return column.to_frame("t").select(shown).to_series()


def _escaped(strings: pl.Series) -> pl.Series:
    odd = is_special(strings).arg_true()
    if not len(odd):
        return strings
    found = strings.gather(odd).str.replace_many(list(_ESCAPES), list(_ESCAPES.values()))
    return strings.clone().scatter(odd, found)

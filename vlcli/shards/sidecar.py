"""The Parquet file beside a tar: one row for every input row of the shard, also for those that failed."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from vlcli import __version__
from vlcli.records import lineage
from vlcli.shards.layout import LAYOUT_VERSION, SIDECAR_MARK

_TEXTS = pa.list_(pa.string())
FIXED_SCHEMA = {
    "key": pa.string(),
    "status": pa.string(),
    "error_message": pa.string(),
    "caption": pa.string(),
    "url": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "original_width": pa.int64(),
    "original_height": pa.int64(),
    "exif": pa.string(),
    "sha256": pa.string(),
    "id": pa.string(),
    "uid": pa.string(),
    "image_id": pa.string(),
    "texts": _TEXTS,
    "text_candidates": _TEXTS,
    "query": pa.string(),
}


def _scalar_type(values: list[Any]) -> pa.DataType | None:
    """The one type of non-null scalars, None where they have none in common. No values at all: string."""
    kinds = {type(v) for v in values}
    if kinds <= {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and all(-(1 << 63) <= v < 1 << 63 for v in values):
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else None


def column(values: list[Any]) -> pa.Array:
    """Values of JSON as a typed column, by what they are and not by where they came from.

    int64, float64, bool, string, and lists of these; whatever else, or what is mixed, becomes its JSON text.
    """
    present = [v for v in values if v is not None]
    if present and all(isinstance(v, list) for v in present):
        inner = _scalar_type([x for v in present for x in v if x is not None])
        if inner is not None:
            return pa.array(values, pa.list_(inner))
    elif (scalar := _scalar_type(present)) is not None:
        return pa.array(values, scalar)
    texts = [None if v is None else orjson.dumps(v, option=orjson.OPT_SORT_KEYS).decode() for v in values]
    return pa.array(texts, pa.string())


def sidecar_table(
    rows: list[dict[str, Any]], kept: list[dict[str, Any]], chain: lineage.Chain = ()
) -> pa.Table:
    """`rows`: the fixed columns, one dict a row; `kept`: the other columns, in the order of their names;
    `chain`: the lineage that the metadata carries.
    """
    arrays = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in FIXED_SCHEMA.items()}
    for name in sorted({name for row in kept for name in row}):
        arrays[name] = column([row.get(name) for row in kept])
    mark = orjson.dumps({"layout": LAYOUT_VERSION, "version": __version__})
    return pa.table(arrays).replace_schema_metadata({SIDECAR_MARK: mark, **lineage.to_metadata(chain)})


def sidecar_bytes(table: pa.Table) -> pa.Buffer:
    """Parquet with a checksum in every page, which `check` verifies."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()

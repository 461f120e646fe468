"""Training data from several sources, in shares: `--data shards/:0.8,pairs.parquet:0.2`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from vlcli.errors import UsageError
from vlcli.shards.pair_table import PairTable, Share
from vlcli.shards.pairs import load_pairs

_WEIGHTED = re.compile(r"(?P<path>.+):(?P<weight>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)")


class Source(NamedTuple):
    path: str
    weight: float | None


def parse_sources(values: Sequence[str]) -> list[Source]:
    """Each value is a path, or `PATH:WEIGHT`, or several of these behind commas. What exists under the whole name is a
    path, colons, commas and all. Raises UsageError for weights that are not all given or not above 0."""
    sources = [source for value in values for source in _parse(value)]
    weights = [source.weight for source in sources if source.weight is not None]
    if weights and len(weights) < len(sources):
        bare = next(source.path for source in sources if source.weight is None)
        raise UsageError(f"--data {bare}: has no weight beside others that have one", remedy=f"{bare}:WEIGHT")
    for source in sources:
        if source.weight is not None and not (0 < source.weight < math.inf):
            raise UsageError(f"--data {source.path}:{source.weight:g}: a weight is above 0")
    return sources


def _parse(value: str) -> list[Source]:
    if os.path.exists(value):
        return [Source(value, None)]
    found = _WEIGHTED.fullmatch(value)
    if found is None:
        return [Source(value, None)]
    pieces: list[Source] = []
    start = 0
    for end in [*(place.start() for place in re.finditer(",", value)), len(value)]:
        one = _WEIGHTED.fullmatch(value, start, end)
        if one is not None:  # else this comma is part of a path
            pieces.append(Source(one["path"], float(one["weight"])))
            start = end + 1
    return pieces


def load_mixture(
    values: Sequence[str],
    *,
    renames: Mapping[str, str] | None = None,
    group: str | None = "family",
    optional: Sequence[str] = (),
    image_root: Path | None = None,
    head: int | None = None,
    skip_damaged: bool = False,
    jobs: int = 1,
) -> PairTable:
    """The pairs of all sources in one table, with the `optional` columns in its frame. With weights, its `shares` say
    how often each source is drawn; `head` is then of each source. Raises as `load_pairs` does, and UsageError for a
    source without rows."""
    sources = parse_sources(values)
    options: dict[str, Any] = {
        "renames": renames,
        "group": group,
        "optional": optional,
        "image_root": image_root,
        "head": head,
        "skip_damaged": skip_damaged,
        "jobs": jobs,
    }
    if all(source.weight is None for source in sources):
        return load_pairs([source.path for source in sources], **options)
    table, shares, frames = PairTable(source=" ".join(values)), [], []
    for source in sources:
        assert source.weight is not None
        start = len(table)
        part = load_pairs([source.path], **options)
        table.extend(part)
        frames.append(part.frame)
        if len(table) == start:
            raise UsageError(f"--data {source.path}: no rows")
        shares.append(Share(source.path, start, len(table), source.weight))
    table.shares = tuple(shares)
    table.frame = pl.concat(frames, how="diagonal_relaxed")
    return table

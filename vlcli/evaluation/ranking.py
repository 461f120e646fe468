"""The best K candidates of every query, in tiles: what predictions and searches are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from vlcli.evaluation.retrieval import rows_of, tile_shape, tiles

if TYPE_CHECKING:
    from vlcli.evaluation.retrieval import SimilarityFunction


class Top(NamedTuple):
    """The candidates of one query, best first; among equals the earlier candidate stands first."""

    query: int
    candidates: list[int]
    scores: list[float]


def top(
    similarity: SimilarityFunction,
    images: Any,
    texts: Any,
    *,
    k: int,
    direction: Literal["i2t", "t2i"],
    side: int | None = None,
) -> Iterator[Top]:
    """The `k` best texts of every image ("i2t") or images of every text ("t2i"), by its own scores."""
    high, wide = (side, side) if side else tile_shape(images, texts)
    if direction == "t2i":
        high, wide = wide, high
    queries, candidates = (images, texts) if direction == "i2t" else (texts, images)
    for rows in tiles(rows_of(queries), high):
        count = rows.stop - rows.start
        best = torch.empty(count, 0)
        where = torch.empty(count, 0, dtype=torch.int64)
        for columns in tiles(rows_of(candidates), wide):
            pair = (rows, columns) if direction == "i2t" else (columns, rows)
            score = similarity(images.rows(pair[0]), texts.rows(pair[1]))
            part = score.i2t if direction == "i2t" else score.t2i.T
            best = torch.cat([best, part.detach().float().cpu()], 1)
            where = torch.cat([where, torch.arange(columns.start, columns.stop).expand(count, -1)], 1)
            best, order = best.sort(dim=1, descending=True, stable=True)
            best, where = best[:, :k], where.gather(1, order[:, :k])
        for q in range(count):
            yield Top(rows.start + q, where[q].tolist(), [round(s, 6) for s in best[q].tolist()])

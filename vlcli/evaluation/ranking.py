"""The best K candidates of every query, in tiles: what predictions and searches are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlcli.evaluation.retrieval import require_finite, rows_of, tile_shape, tiles

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
    """The `k` best texts of every image ("i2t") or images of every text ("t2i"), by its own scores. InputError where
    one is NaN or infinite."""
    high, wide = (side, side) if side else tile_shape(images, texts)
    if direction == "t2i":
        high, wide = wide, high
    queries, candidates = (images, texts) if direction == "i2t" else (texts, images)
    for rows in tiles(rows_of(queries), high):
        count = rows.stop - rows.start
        best, where = torch.empty(count, 0), torch.empty(count, 0, dtype=torch.int64)
        for columns in tiles(rows_of(candidates), wide):
            pair = (rows, columns) if direction == "i2t" else (columns, rows)
            score = similarity(images.rows(pair[0]), texts.rows(pair[1]))
            part = (score.i2t if direction == "i2t" else score.t2i.T).detach().float().cpu()
            values, places = _in_question(part, k, best[:, k - 1 : k])
            best = torch.cat([best, values], 1)
            where = torch.cat([where, places + columns.start], 1)
            best, order = best.sort(dim=1, descending=True, stable=True)
            best, where = best[:, :k], where.gather(1, order[:, :k])
        for q in range(count):
            yield Top(rows.start + q, where[q].tolist(), [round(s, 6) for s in best[q].tolist()])


def _in_question(part: Tensor, k: int, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and columns (rows, w) of those in part (rows, columns) that can be among the k best of their row, in their
    order, with −∞ behind the last. floor (rows, 1): what the k-th best so far scores, which a later one must surpass;
    (rows, 0) where there are fewer. Of a million candidates a few thousand are ever sorted."""
    require_finite(part)
    if floor.shape[1]:
        chosen = part > floor
    elif k < part.shape[1]:
        chosen = part >= part.topk(k, 1).values[:, -1:]
    else:
        return part, torch.arange(part.shape[1]).expand_as(part)
    row, column = _places(chosen)
    counts = torch.bincount(row, minlength=len(part))
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    shape = (len(part), int(counts.max()))
    values, places = torch.full(shape, -torch.inf), torch.zeros(shape, dtype=torch.int64)
    values[row, place], places[row, place] = part[row, column], column
    return values, places


def _places(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """`chosen.nonzero()` of (rows, columns), row by row: as it lies in memory, for a matrix may be the transpose of
    another, and by NumPy, which goes over what is rarely true five times as fast as torch."""
    array = chosen.numpy()
    if array.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(array), max(array.shape[1], 1))
    else:
        column, row = np.divmod(np.flatnonzero(array.T), max(array.shape[0], 1))
        order = np.argsort(row, kind="stable")
        row, column = row[order], column[order]
    return torch.from_numpy(row), torch.from_numpy(column)

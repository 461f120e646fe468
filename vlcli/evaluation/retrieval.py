"""Image-text retrieval in both directions, with several positives on either side, in bounded memory.

Ranking (FILIP §3.1): the `i2t` matrix orders the texts for an image, the `t2i` matrix the images for a
text; for a global model the two are one. What matters of a query is the rank of its best positive,

    rank = 1 + |{non-positives with a score >= that positive's score}|

so ties are pessimistic: a wrong item with an equal score stands ahead, and a model that scores everything
alike has no recall. Scores closer than TIE are equal: the last bits of a product depend on the shape of
its tile, and what the model cannot tell apart ("Fox" and "fox", one picture under two ids) must tie
wherever it stands. Only ranks are kept, never the images × texts matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlcli.errors import InputError
from vlcli.evaluation.bootstrap import components, interval
from vlcli.evaluation.metrics import RECALL_AT, mean_recall, recall_hits, recalls

if TYPE_CHECKING:
    from vlcli.models.dual import ImageTokens, Similarity, TextTokens

    SimilarityFunction = Callable[[ImageTokens, TextTokens], Similarity]

# Pairs of one tile, whose scores a cache holds while they are compared (4 MiB in float32), and token products, which
# late interaction goes through part by part. A tile has more texts than images: among many, those of one length stand
# together.
TILE_PAIRS, TILE_PRODUCTS, TEXTS_AN_IMAGE = 1 << 20, 1 << 27, 8
# Pairs whose scores are kept from one pass of `ranks` to the next: 256 MiB of both directions.
KEPT_PAIRS = 1 << 25
# Of cosines in float32: ten times what tiles and batches of other shapes were seen to change.
TIE = 1e-6


class Ranks(NamedTuple):
    """1-based rank of the best positive of every query; 0 for a row that has none (a mere candidate)."""

    i2t: npt.NDArray[np.int64]  # (images,)
    t2i: npt.NDArray[np.int64]  # (texts,)


def rows_of(features: Any) -> int:
    """How many images or texts an ImageTokens or TextTokens holds."""
    return len(features.pooled if features.tokens is None else features.tokens)


def tile_pairs(images: ImageTokens, texts: TextTokens) -> int:
    """How many pairs a tile has."""
    a = 1 if images.tokens is None else images.tokens.shape[1]
    b = 1 if texts.tokens is None else texts.tokens.shape[1]
    return max(1, min(TILE_PAIRS, TILE_PRODUCTS // (a * b)))


def tile_shape(images: ImageTokens, texts: TextTokens) -> tuple[int, int]:
    """Images and texts of a tile."""
    pairs = tile_pairs(images, texts)
    rows = max(1, math.isqrt(pairs // TEXTS_AN_IMAGE))
    return rows, pairs // rows


def require_finite(scores: torch.Tensor) -> None:
    """InputError for scores of which one is NaN, which compares false with everything and would count as a perfect
    rank, or infinite. Cosines do not add up to what float32 has not."""
    if not torch.isfinite(scores.sum()):
        raise InputError("the model's similarities are not finite", remedy="the checkpoint is damaged")


def tiles(total: int, side: int) -> Iterator[slice]:
    for start in range(0, total, side):
        yield slice(start, min(start + side, total))


def ranks(
    similarity: SimilarityFunction,
    images: ImageTokens,
    texts: TextTokens,
    positives: Sequence[AbstractSet[int]],
    *,
    side: int | None = None,
) -> Ranks:
    """Ranks of the best positives; `positives[i]` are the text columns that image i shows.

    Two passes over the same tiles: the first, only over tiles with a positive, finds the best positive
    score of each query; the second counts the non-positives that reach it. Working memory is one tile, the
    first tiles of the first pass, and a few vectors.
    """
    n, m = rows_of(images), rows_of(texts)
    assert len(positives) == n, "one set of positives an image"
    high, wide = (side, side) if side else tile_shape(images, texts)
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, shown in enumerate(positives):
        for j in shown:
            pairs.setdefault((i // high, j // wide), []).append((i % high, j % wide))

    best_i2t = torch.full((n,), -torch.inf)
    best_t2i = torch.full((m,), -torch.inf)

    Tile = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
    kept: dict[tuple[int, int], Tile] = {}

    def tile(rows: slice, columns: slice) -> Tile:
        if known := kept.get((rows.start, columns.start)):
            return known
        score = similarity(images.rows(rows), texts.rows(columns))
        i2t = score.i2t.detach().float().cpu()
        t2i = i2t if score.t2i is score.i2t else score.t2i.detach().float().cpu()
        require_finite(i2t)
        if t2i is not i2t:
            require_finite(t2i)
        inside = pairs.get((rows.start // high, columns.start // wide))
        if inside is None:
            return i2t, t2i, None
        mask = torch.zeros(i2t.shape, dtype=torch.bool)
        mask[tuple(torch.tensor(inside).T)] = True
        return i2t, t2i, mask

    for a, b in sorted(pairs):
        rows, columns = slice(a * high, min((a + 1) * high, n)), slice(b * wide, min((b + 1) * wide, m))
        i2t, t2i, mask = found = tile(rows, columns)
        assert mask is not None
        if (len(kept) + 1) * high * wide <= KEPT_PAIRS:
            kept[rows.start, columns.start] = found
        best_i2t[rows] = torch.maximum(best_i2t[rows], i2t.masked_fill(~mask, -torch.inf).amax(1))
        best_t2i[columns] = torch.maximum(best_t2i[columns], t2i.masked_fill(~mask, -torch.inf).amax(0))

    ahead_i2t = torch.ones(n, dtype=torch.int64)
    ahead_t2i = torch.ones(m, dtype=torch.int64)
    for rows in tiles(n, high):
        for columns in tiles(m, wide):
            i2t, t2i, mask = tile(rows, columns)
            for scores, best, ahead, dim in (
                (i2t, best_i2t[rows, None], ahead_i2t[rows], 1),
                (t2i, best_t2i[None, columns], ahead_t2i[columns], 0),
            ):
                # ones and zeros as float32: sums of bool are ten times slower, and 2^24 are exact
                over = torch.ge(scores, best - TIE, out=torch.empty_like(scores))
                if mask is not None:
                    over[mask] = 0
                ahead += over.sum(dim).long()
    ahead_i2t[best_i2t.isneginf()] = 0
    ahead_t2i[best_t2i.isneginf()] = 0
    return Ranks(ahead_i2t.numpy(), ahead_t2i.numpy())


def recall_interval(
    found: Ranks, positives: Sequence[AbstractSet[int]], *, count: int, seed: int
) -> dict[str, Any]:
    """95 % intervals of the six recalls and their mean, resampling images together with their texts.

    The units are the connected components of the positives: an image and its captions, or, where a text has
    several images, all of them. With a single unit nothing can be resampled and there is no interval: `{}`.
    """
    return mean_interval([found], [positives], [range(len(positives))], count=count, seed=seed)


def mean_interval(
    found: Sequence[Ranks],
    positives: Sequence[Sequence[AbstractSet[int]]],
    images: Sequence[Sequence[int]],
    *,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """The same of the mean over several tests (one a language), of which `images[k][i]` says which image of all is
    the i-th of test k: an image is drawn with its texts in every language, for these are not independent.
    """
    statistic, units, names = recall_statistic(found, positives, images)
    if units < 2 or count < 1:
        return {}
    bounds = interval(statistic, units, count=count, seed=seed)
    return sides_of(names, bounds)


def recall_statistic(
    found: Sequence[Ranks],
    positives: Sequence[Sequence[AbstractSet[int]]],
    images: Sequence[Sequence[int]],
) -> tuple[Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], int, list[str]]:
    """The recalls of each side in percent and their mean, as a function of how often each unit counts; how many units
    there are; the sides that have queries. Arguments are those of `mean_interval`."""
    total = 1 + max(max(numbers) for numbers in images)
    edges: list[tuple[int, int]] = []
    starts, texts = [], 0
    for ranked, shown, numbers in zip(found, positives, images, strict=True):
        starts.append(texts)
        edges += [(numbers[i], texts + j) for i, columns in enumerate(shown) for j in columns]
        texts += len(ranked.t2i)
    unit = components(total, texts, edges)
    units = int(unit.max()) + 1
    # [test][side] → (names of the side, hits (K, units), queries (units,)); all tests have the same sides.
    sides = [
        _sides(ranked, unit[np.asarray(numbers)], unit[total + start :][: len(ranked.t2i)], units)
        for ranked, numbers, start in zip(found, images, starts, strict=True)
    ]

    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            values = [
                [100 * (hits @ weights) / (asked @ weights) for _, hits, asked in test] for test in sides
            ]
        return np.mean([np.append(np.concatenate(test), np.mean(test)) for test in values], axis=0)

    return statistic, units, [name for name, _, _ in sides[0]]


def sides_of(names: Sequence[str], numbers: Sequence[Any]) -> dict[str, Any]:
    """What `recall_statistic` gives, or bounds of each, as the retrieval object has it: by side, and `MR`."""
    ks = [f"R@{k}" for k in RECALL_AT]
    sides = {name: dict(zip(ks, numbers[s * len(ks) :], strict=False)) for s, name in enumerate(names)}
    return {**sides, "MR": numbers[-1]}


def _sides(
    found: Ranks, images: npt.NDArray[np.int64], texts: npt.NDArray[np.int64], units: int
) -> list[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    """Of each direction that has queries: its hits (K, units) and its queries (units,), by the unit they are of."""
    sides = []
    for name, rank, where in (("i2t", found.i2t, images), ("t2i", found.t2i, texts)):
        asked = rank > 0
        if asked.any():
            hits = recall_hits(rank[asked])
            sums = [np.bincount(where[asked], hits[:, k], units) for k in range(hits.shape[1])]
            sides.append((name, np.stack(sums), np.bincount(where[asked], minlength=units)))
    return sides


def retrieval(
    similarity: SimilarityFunction,
    images: ImageTokens,
    texts: TextTokens,
    positives: Sequence[AbstractSet[int]],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    side: int | None = None,
) -> dict[str, Any]:
    """Recall@1, 5, 10 in both directions and their mean (MR), in percent, with bootstrap intervals.

    `similarity` is `model.similarity` or any function of (image features, text features) that gives
    `.i2t` and `.t2i`, both (images, texts); `positives[i]` is the set of text columns of image i. An
    image or text without a positive is a candidate and no query; a direction without a query is None.
    `bootstrap=0`: no intervals.
    """
    found = ranks(similarity, images, texts, positives, side=side)
    return summary(found, positives, bootstrap=bootstrap, seed=seed)


def summary(
    found: Ranks, positives: Sequence[AbstractSet[int]], *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The retrieval object of design §3 from ranks."""
    if not found.i2t.any() and not found.t2i.any():
        raise InputError("no image has a text: there is nothing to retrieve")
    return {
        "images": len(found.i2t),
        "texts": len(found.t2i),
        **recalls_of(found),
        "ci95": recall_interval(found, positives, count=bootstrap, seed=seed),
    }


def recalls_of(found: Ranks) -> dict[str, Any]:
    """{"i2t", "t2i", "MR"} in percent; a direction without a query is None."""
    i2t = recalls(found.i2t[found.i2t > 0]) if found.i2t.any() else None
    t2i = recalls(found.t2i[found.t2i > 0]) if found.t2i.any() else None
    return {"i2t": i2t, "t2i": t2i, "MR": mean_recall(i2t, t2i)}

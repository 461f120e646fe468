"""How well similarities follow people's ratings: Spearman's correlation, resampled as for CxC [A Table 3].

A resample takes half of the queries and for each of them one of the items that were rated with it; what is reported is
the mean and the standard deviation of the correlation (× 100) over all resamples. The protocol does not say which side
is the query; these are the ones whose deviations are those that ALIGN prints:

    STS, SIS   either end: every rated pair belongs to two queries
    SITS       images
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Correlation(NamedTuple):
    mean: float  # × 100
    sd: float
    n: int  # rated pairs
    queries: int

    def as_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "sd": self.sd, "n": self.n, "queries": self.queries}


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's correlation of two lists, equal values having the mean of their ranks; NaN where one is constant."""
    x, y = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (a, b))
    return _of_codes(x, y, int(x.max()) + 1, int(y.max()) + 1)


def _of_codes(x: Ints, y: Ints, levels_x: int, levels_y: int) -> float:
    """The same of values that are given by their places among all values, so that ranks take no sorting."""
    ranks = []
    for codes, levels in ((x, levels_x), (y, levels_y)):
        counts = np.bincount(codes, minlength=levels)
        rank = (np.cumsum(counts) - (counts - 1) / 2)[codes]
        ranks.append(rank - rank.mean())
    power = float((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1]) / power**0.5 if power > 0 else float("nan")


def resampled(
    similarities: Floats, ratings: Floats, *sides: npt.ArrayLike, count: int = 1000, seed: int = 0
) -> Correlation:
    """The correlation of `similarities` (n,) with `ratings` (n,), over `count` resamples.

    Each of the `sides` (n,) says of every pair which query it is rated for; with two sides a pair belongs to a query of
    either, and equal values are one query. `count=0`: all pairs at once, without a deviation.
    """
    n = len(ratings)
    query = np.unique(np.concatenate([np.asarray(side) for side in sides]), return_inverse=True)[1]
    queries = int(query.max()) + 1
    order = np.argsort(query, kind="stable")
    pair = order % n  # of the pairs, grouped by query
    sizes = np.bincount(query, minlength=queries)
    starts = np.cumsum(sizes) - sizes
    _, x = np.unique(similarities, return_inverse=True)
    _, y = np.unique(ratings, return_inverse=True)
    levels = int(x.max()) + 1, int(y.max()) + 1
    if not count:
        return Correlation(round(100 * _of_codes(x, y, *levels), 4), 0.0, n, queries)
    rng = np.random.default_rng(seed)
    values = np.empty(count)
    for k in range(count):
        drawn = rng.permutation(queries)[: max(2, queries // 2)]
        item = pair[starts[drawn] + rng.integers(sizes[drawn])]
        values[k] = _of_codes(x[item], y[item], *levels)
    mean, sd = 100 * values.mean(), 100 * values.std(ddof=1) if count > 1 else 0.0
    return Correlation(round(float(mean), 4), round(float(sd), 4), n, queries)

"""All pairs of 64-bit codes that differ in at most `radius` bits: exact, without comparing all with all.

Cut into radius + m bands, two codes within the radius agree on at least m whole bands (the pigeonhole principle;
m = 1 is the multi-index hashing of Norouzi, Punjani and Fleet, CVPR 2012). So codes are compared only where m bands are
equal: with a larger m there are more choices of m bands to sort by, and fewer codes that are equal on any of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

MAX_RADIUS = 31
MOST = 1 << 20  # pairs that are compared at once
SORTED = 20  # a code's part in a sort costs about as much as so many comparisons

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b (m,) int64, distance (m,) uint8


def near_codes(codes: np.ndarray, radius: int, others: np.ndarray | None = None) -> Iterator[Pairs]:
    """Places of `codes` (n,) uint64 and of `others`, each pair once; without `others` a < b within `codes`.

    Codes of one array should be distinct: equal ones are compared like any others, so n equal ones cost n².
    """
    target = codes if others is None else others
    if not len(codes) or not len(target):
        return
    masks = _bands(radius + _agreeing(radius, len(codes), len(target)))
    for chosen in itertools.combinations(range(len(masks)), len(masks) - radius):
        mask = np.bitwise_or.reduce(masks[list(chosen)])
        # a pair is found at the first choice: none of the bands before the last chosen one is equal besides
        before = [masks[i] for i in range(chosen[-1]) if i not in chosen]
        for x, y in _equal(codes, target, mask, within=others is None):
            bits = codes[x] ^ target[y]
            keep = np.bitwise_count(bits) <= radius
            x, y, bits = x[keep], y[keep], bits[keep]
            first = np.ones(len(bits), bool)
            for band in before:
                first &= bits & band != 0
            if first.any():
                x, y, bits = x[first], y[first], bits[first]
                if others is None:
                    x, y = np.minimum(x, y), np.maximum(x, y)
                yield x, y, np.bitwise_count(bits)


def _agreeing(radius: int, n: int, m: int) -> int:
    """How many bands must be equal, so that sorts and comparisons of evenly spread codes cost least."""
    assert 0 <= radius <= MAX_RADIUS, radius

    def cost(equal: int) -> float:
        bits = 64 * equal // (radius + equal)
        return math.comb(radius + equal, equal) * (SORTED * (n + m) + n * m / 2**bits)

    return min(range(1, 65 - radius), key=cost)


def _bands(number: int) -> np.ndarray:
    """(number,) uint64: masks of bands that cover 64 bits."""
    edges = np.linspace(0, 64, number + 1).round().astype(int).tolist()
    masks = [((1 << (end - start)) - 1) << start for start, end in itertools.pairwise(edges)]
    return np.array(masks, np.uint64)


def _equal(
    codes: np.ndarray, target: np.ndarray, mask: np.uint64, *, within: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places (m,), (m,) of codes and of targets that are equal under the mask; within one array each pair once."""
    order = np.argsort(target & mask, kind="stable")
    values = target[order] & mask
    if within:
        left = order
        starts = np.arange(1, len(order) + 1)
        ends = np.searchsorted(values, values, side="right")
    else:
        left = np.arange(len(codes))
        starts = np.searchsorted(values, codes & mask, side="left")
        ends = np.searchsorted(values, codes & mask, side="right")
    counts = ends - starts
    some = np.flatnonzero(counts)
    left, starts, counts = left[some], starts[some], counts[some]
    ends = np.cumsum(counts)
    done = 0
    while done < len(left):
        stop = max(done + 1, int(np.searchsorted(ends, ends[done] - counts[done] + MOST, side="right")))
        part = slice(done, stop)
        skipped = ends[part] - counts[part] - starts[part]
        places = np.arange(ends[done] - counts[done], ends[stop - 1]) - np.repeat(skipped, counts[part])
        yield np.repeat(left[part], counts[part]), order[places]
        done = stop

"""All pairs of 64-bit codes that differ in at most `radius` bits: exact, without comparing all with all.

Cut into radius + 1 bands, two codes within the radius agree on at least one whole band (the pigeonhole principle; the
multi-index hashing of Norouzi, Punjani and Fleet, CVPR 2012). So codes are compared only where a band is equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

TILE = 2048  # codes on each side that are compared at once
MAX_RADIUS = 31

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b (m,) int64, distance (m,) uint8


def near_codes(codes: np.ndarray, radius: int, others: np.ndarray | None = None) -> Iterator[Pairs]:
    """Places of `codes` (n,) uint64 and of `others`, each pair once; without `others` a < b within `codes`.

    Codes of one array should be distinct: equal ones are compared like any others, so n equal ones cost n².
    """
    bands = _bands(radius)
    for number, (shift, width) in enumerate(bands):
        left = _sorted_by_band(codes, shift, width)
        right = left if others is None else _sorted_by_band(others, shift, width)
        for a, b in _equal_bands(left, right, within=others is None):
            target = codes if others is None else others
            for x, y in _tiles(a, b, within=others is None):
                differing = codes[x][:, None] ^ target[y][None, :]
                i, j = np.nonzero(np.bitwise_count(differing) <= radius)
                bits = differing[i, j]
                keep = np.ones(len(i), bool)
                for earlier in bands[:number]:  # a pair is found at the first band that is equal
                    keep &= _band(bits, *earlier) != 0
                if others is None:
                    keep &= x[i] != y[j]
                if not keep.any():
                    continue
                one, two, bits = x[i[keep]], y[j[keep]], bits[keep]
                if others is None:
                    if x is y:  # both orders are in the tile
                        once = one < two
                        one, two, bits = one[once], two[once], bits[once]
                    one, two = np.minimum(one, two), np.maximum(one, two)
                yield one, two, np.bitwise_count(bits)


def _bands(radius: int) -> list[tuple[int, int]]:
    """(first bit, number of bits) of radius + 1 bands that cover 64 bits."""
    assert 0 <= radius <= MAX_RADIUS, radius
    edges = np.linspace(0, 64, radius + 2).round().astype(int).tolist()
    return [(start, end - start) for start, end in itertools.pairwise(edges)]


def _band(codes: np.ndarray, shift: int, width: int) -> np.ndarray:
    mask = np.uint64((1 << width) - 1)
    return (codes >> np.uint64(shift)) & mask


def _sorted_by_band(codes: np.ndarray, shift: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of the band that occur, where each begins, and the codes' places in the order of these values."""
    band = _band(codes, shift, width)
    order = np.argsort(band, kind="stable")
    values, starts = np.unique(band[order], return_index=True)
    return values, np.append(starts, len(order)), order


def _equal_bands(left: tuple, right: tuple, *, within: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The places on both sides that have one value of the band."""
    (values, starts, order), (others, begins, other_order) = left, right
    if within:
        shared = np.flatnonzero(np.diff(starts) > 1)
        places = zip(shared.tolist(), shared.tolist(), strict=True)
    else:
        _, one, two = np.intersect1d(values, others, assume_unique=True, return_indices=True)
        places = zip(one.tolist(), two.tolist(), strict=True)
    for i, j in places:
        yield order[starts[i] : starts[i + 1]], other_order[begins[j] : begins[j + 1]]


def _tiles(a: np.ndarray, b: np.ndarray, *, within: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(0, len(a), TILE):
        x = a[i : i + TILE]
        for j in range(i if within else 0, len(b), TILE):
            yield x, x if within and i == j else b[j : j + TILE]

"""Random choices that only the seed and a row's own name decide.

A draw is the BLAKE2b of `PURPOSE:SEED:NAME` with a digest of 8 bytes, read as a big-endian number below 2^64:
what `printf %s "sample:0:$id" | b2sum -l 64` prints. So a choice does not depend on the order of rows, on how
the input is cut into files and parts, or on the version of any library.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]


def draws(purpose: str, seed: int, names: Iterable[str]) -> Codes:
    """(n,) one number for each name."""
    return _digests(f"{purpose}:{seed}:", names)


def fingerprints(strings: Iterable[str]) -> Codes:
    """(n,) 64 bits of each string, to tell strings apart by: BLAKE2b of the string itself."""
    return _digests("", strings)


def _digests(prefix: str, strings: Iterable[str]) -> Codes:
    found = b"".join([blake2b((prefix + s).encode(), digest_size=8).digest() for s in strings])
    return np.frombuffer(found, ">u8").astype(np.uint64)


def within(numbers: Codes, share: Fraction) -> NDArray[np.bool_]:
    """(n,) whether each draw is among this share of all there can be."""
    top = -(-share.numerator * 2**64 // share.denominator) - 1  # the largest that is below share · 2^64
    return np.asarray(numbers <= np.uint64(top))

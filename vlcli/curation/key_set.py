"""Which of many 64-bit keys are among some known ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_MOST_BITS = 24  # 16 MiB of marks


class KeySet:
    """Known keys in order, each once or more often, behind marks that turn most of the others away.

    The keys must be spread evenly, as hashes are.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        bits = min(_MOST_BITS, 4 + max(1, len(keys)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._marks = np.zeros(1 << bits, np.bool_)
        self._marks[keys >> self._shift] = True

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of `keys` that are known, ascending, and where among the known ones each stands first."""
        rows = np.flatnonzero(self._marks[keys >> self._shift]) if len(self.keys) else np.zeros(0, np.int64)
        wanted = keys[rows]
        at = np.searchsorted(self.keys, wanted)
        inside = at < len(self.keys)
        inside[inside] = self.keys[at[inside]] == wanted[inside]
        return rows[inside], at[inside]

"""Rows linked in pairs, and the groups that these links make."""

from __future__ import annotations

import threading

import numpy as np


class Groups:
    """`link(a, b)` says that rows belong together; `first()` gives the first row of each row's group.

    Links are absorbed at once: 8 bytes a row, however many there are. Several threads may link and ask.
    """

    def __init__(self, rows: int) -> None:
        self._first = np.arange(rows)
        self._linking = threading.Lock()

    def link(self, a: np.ndarray, b: np.ndarray) -> None:
        """a, b (m,) row numbers; a[i] and b[i] are in one group from now on."""
        first = self._first
        with self._linking:
            while len(a):
                a, b = self._shortened(a), self._shortened(b)
                apart = a != b
                a, b = a[apart], b[apart]
                # of several links of one root the smallest counts in this round, the others in the next ones
                np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """rows (m,) → (m,) the smallest row number of each row's group, as it is now."""
        found = self._first[rows]
        while ((above := self._first[found]) != found).any():
            found = above
        return found

    def first(self) -> np.ndarray:
        """(n,) the smallest row number of each row's group: its own where it stands alone."""
        with self._linking:
            return self._shortened(np.arange(len(self._first)))

    def _shortened(self, rows: np.ndarray) -> np.ndarray:
        found = self.of(rows)
        self._first[rows] = found  # a shorter way next time
        return found

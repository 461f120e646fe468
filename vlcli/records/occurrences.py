"""How many times each key has been seen before, for billions of keys in bounded memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.uint32]

_FIRST_SLOTS = 1 << 12
_MAX_LOAD = 0.5  # linear probing stays short below it
_CHUNK = 1 << 20  # slots moved at a time when the table grows
BYTES_PER_SLOT = 12


class Occurrences:
    """An open-addressing table of 64-bit keys and their counts, probed a whole batch at a time.

    Past `memory` bytes the table lives in an unlinked file in `directory` (default: the system's temporary
    directory) that the kernel pages in and out. Use it as a context manager, or `close` it.
    """

    def __init__(self, *, memory: int = 256 << 20, directory: str | os.PathLike[str] | None = None) -> None:
        self._memory, self._directory = memory, directory
        self._keys, self._counts = self._allocate(_FIRST_SLOTS)
        self.size = 0  # distinct keys

    def count(self, keys: Keys) -> npt.NDArray[np.int64]:
        """(n,) keys → (n,) how often each came before, in earlier calls and earlier in `keys`."""
        keys = np.ascontiguousarray(keys, dtype=np.uint64)
        if not len(keys):
            return np.zeros(0, np.int64)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        repeats = np.diff(np.append(starts, len(keys)))
        before = self._add(ranked[starts], repeats.astype(np.uint32))
        ordinals = np.empty(len(keys), np.int64)
        within = np.arange(len(keys)) - np.repeat(starts, repeats)
        ordinals[order] = np.repeat(before.astype(np.int64), repeats) + within
        return ordinals

    def add(self, keys: Keys, amounts: Counts) -> None:
        """Keys that are all different have come this often in addition."""
        for start in range(0, len(keys), _CHUNK):
            self._add(np.array(keys[start : start + _CHUNK]), np.array(amounts[start : start + _CHUNK]))

    def items(self) -> tuple[Keys, Counts]:
        """All keys in order, and their counts."""
        used = np.flatnonzero(self._counts)
        order = used[np.argsort(self._keys[used])]
        return self._keys[order], self._counts[order]

    def _add(self, keys: Keys, amounts: Counts) -> Counts:
        """Add to the counts of distinct `keys`; returns what they were."""
        while self.size + len(keys) > _MAX_LOAD * len(self._keys):
            self._grow()
        return self._insert(keys, amounts)

    def _insert(self, keys: Keys, amounts: Counts) -> Counts:
        mask = np.uint64(len(self._keys) - 1)
        slots = (_mix(keys) & mask).astype(np.int64)
        before = np.zeros(len(keys), np.uint32)
        left = np.arange(len(keys))
        while len(left):
            at = slots[left]
            empty = self._counts[at] == 0
            # Several keys may want one empty slot: the last to write wins it, the others probe on.
            self._keys[at[empty]] = keys[left[empty]]
            mine = self._keys[at] == keys[left]
            won, where = left[mine], at[mine]
            before[won] = self._counts[where]
            self.size += int(np.count_nonzero(before[won] == 0))
            self._counts[where] += amounts[won]
            left = left[~mine]
            slots[left] = (slots[left] + 1) & int(mask)
        return before

    def _grow(self) -> None:
        old_keys, old_counts = self._keys, self._counts
        self._keys, self._counts = self._allocate(2 * len(old_keys))
        self.size = 0
        for start in range(0, len(old_keys), _CHUNK):
            counts = old_counts[start : start + _CHUNK]
            used = counts > 0
            self._insert(old_keys[start : start + _CHUNK][used], counts[used])

    def _allocate(self, slots: int) -> tuple[Keys, Counts]:
        size = slots * BYTES_PER_SLOT
        if size <= self._memory:
            return np.zeros(slots, np.uint64), np.zeros(slots, np.uint32)
        with tempfile.TemporaryFile(prefix="vlcli-", dir=self._directory) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(
                    file.fileno(), 0, size
                )  # a full disk is an error here and not a crash later
            else:
                file.truncate(size)
            pages = mmap.mmap(file.fileno(), size)  # lives on without its name until the arrays are gone
        return np.frombuffer(pages, np.uint64, slots), np.frombuffer(
            pages, np.uint32, slots, offset=8 * slots
        )

    def close(self) -> None:
        """Give the table's memory and file back."""
        self._keys, self._counts = np.zeros(1, np.uint64), np.zeros(1, np.uint32)
        self.size = 0

    def __enter__(self) -> Occurrences:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _mix(keys: Keys) -> Keys:
    """splitmix64's finaliser (Steele et al. 2014): keys that are not hashes yet spread over the table."""
    mixed = keys ^ (keys >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed = mixed * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

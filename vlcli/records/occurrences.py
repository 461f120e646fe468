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
_SMALL = 1 << 22  # slots up to which a table grows fourfold
_MAX_LOAD = 0.75  # linear probing stays short enough below it
_CHUNK = 1 << 20  # slots moved at a time when a table grows


class Occurrences:
    """64-bit keys and how often each came, asked a whole batch at a time.

    Most keys come once: that takes 8 bytes a slot, and only those that come again have a count. Past `memory` bytes
    the tables live in unlinked files in `directory` (default: the system's temporary directory) that the kernel pages
    in and out. Use it as a context manager, or `close` it.
    """

    def __init__(self, *, memory: int = 256 << 20, directory: str | os.PathLike[str] | None = None) -> None:
        self._seen = _Table(memory, directory, counts=False)
        self._again = _Table(memory, directory, counts=True)  # key → how often it came after the first time
        self._repeats = True  # whether keys came again within the last call

    @property
    def size(self) -> int:
        """Distinct keys."""
        return self._seen.size

    def count(self, keys: Keys) -> npt.NDArray[np.int64]:
        """(n,) keys → (n,) how often each came before, in earlier calls and earlier in `keys`."""
        keys = np.ascontiguousarray(keys, dtype=np.uint64)
        if not len(keys):
            return np.zeros(0, np.int64)
        keys = _mix(keys)
        # Equal keys must stay in the order in which they came; keys that are all different sort faster without.
        order = np.argsort(keys, kind="stable" if self._repeats else "quicksort")
        ranked = keys[order]
        differs = np.concatenate(([True], ranked[1:] != ranked[:-1]))
        ordinals = np.empty(len(keys), np.int64)
        if differs.all():
            ordinals[order] = self._add(ranked, np.ones(len(keys), np.uint32))
            self._repeats = False
            return ordinals
        if not self._repeats:
            self._repeats = True
            order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(differs)
        repeats = np.diff(np.append(starts, len(keys)))
        before = self._add(ranked[starts], repeats.astype(np.uint32))
        within = np.arange(len(keys)) - np.repeat(starts, repeats)
        ordinals[order] = np.repeat(before.astype(np.int64), repeats) + within
        return ordinals

    def add(self, keys: Keys, amounts: Counts) -> None:
        """Keys that are all different have come this often in addition."""
        for start in range(0, len(keys), _CHUNK):
            mixed = _mix(np.array(keys[start : start + _CHUNK]))
            order = np.argsort(mixed)
            self._add(mixed[order], np.array(amounts[start : start + _CHUNK])[order])

    def items(self) -> tuple[Keys, Counts]:
        """All keys in order, and their counts."""
        keys, _ = self._seen.items()
        counts = np.ones(len(keys), np.uint32)
        again, more = self._again.items()
        assert more is not None
        counts[np.searchsorted(keys, again)] += more
        keys = _unmix(keys)
        order = np.argsort(keys)
        return keys[order], counts[order]

    def _add(self, keys: Keys, amounts: Counts) -> Counts:
        """Add to the counts of distinct mixed `keys` in order; returns what they were."""
        before = self._seen.add(keys, None)
        more = amounts - (before == 0)
        rows = np.flatnonzero(more)
        before[rows] += self._again.add(keys[rows], more[rows])
        return before

    def close(self) -> None:
        """Give the tables' memory and files back."""
        self._seen.close()
        self._again.close()

    def __enter__(self) -> Occurrences:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class _Table:
    """Open addressing: keys, and a count for each or (`counts` false) only that it is there. Slots of key 0 are empty;
    the key 0 itself stands beside the table. A key's first slot is its leading bits: keys that come in order walk
    through memory, and do not jump in it."""

    def __init__(self, memory: int, directory: str | os.PathLike[str] | None, *, counts: bool) -> None:
        self._memory, self._directory, self._counted = memory, directory, counts
        self._keys, self._counts = self._allocate(_FIRST_SLOTS)
        self._zero = 0
        self.size = 0

    def add(self, keys: Keys, amounts: Counts | None) -> Counts:
        """Add to the counts of distinct `keys` in order; returns what they were: 0 or 1 where there are none."""
        while self.size + len(keys) > _MAX_LOAD * len(self._keys):
            self._grow()
        before = self._insert(keys, amounts)
        for place in np.flatnonzero(keys == 0).tolist():  # one at most
            before[place] = self._zero
            self.size += self._zero == 0
            self._zero = self._zero + int(amounts[place]) if amounts is not None else 1
        return before

    def items(self) -> tuple[Keys, Counts | None]:
        """All keys in order, and their counts."""
        used = np.flatnonzero(self._keys)
        order = used[np.argsort(self._keys[used])]
        keys, counts = self._keys[order], self._counts[order] if self._counts is not None else None
        if self._zero:
            keys = np.concatenate([np.zeros(1, np.uint64), keys])
            counts = None if counts is None else np.concatenate([np.array([self._zero], np.uint32), counts])
        return keys, counts

    def _insert(self, keys: Keys, amounts: Counts | None) -> Counts:
        mask = len(self._keys) - 1
        slots = (keys >> np.uint64(64 - mask.bit_length())).astype(np.int64)
        before = np.zeros(len(keys), np.uint32)
        left = np.flatnonzero(keys)
        while len(left):
            at = slots[left]
            empty = self._keys[at] == 0
            # Several keys may want one empty slot: the last to write wins it, the others probe on.
            self._keys[at[empty]] = keys[left[empty]]
            mine = self._keys[at] == keys[left]
            won, where = left[mine], at[mine]
            self.size += int(np.count_nonzero(empty[mine]))
            if self._counts is None or amounts is None:
                before[won] = ~empty[mine]
            else:
                before[won] = self._counts[where]
                self._counts[where] += amounts[won]
            left = left[~mine]
            slots[left] = (slots[left] + 1) & mask
        return before

    def _grow(self) -> None:
        old_keys, old_counts = self._keys, self._counts
        self._keys, self._counts = self._allocate((4 if len(old_keys) < _SMALL else 2) * len(old_keys))
        self.size = int(self._zero > 0)
        for start in range(0, len(old_keys), _CHUNK):
            keys = old_keys[start : start + _CHUNK]
            used = keys != 0
            counts = old_counts[start : start + _CHUNK][used] if old_counts is not None else None
            self._insert(keys[used], counts)

    def _allocate(self, slots: int) -> tuple[Keys, Counts | None]:
        size = slots * (12 if self._counted else 8)
        if size <= self._memory:
            return np.zeros(slots, np.uint64), np.zeros(slots, np.uint32) if self._counted else None
        with tempfile.TemporaryFile(prefix="vlcli-", dir=self._directory) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(
                    file.fileno(), 0, size
                )  # a full disk is an error here and not a crash later
            else:
                file.truncate(size)
            pages = mmap.mmap(file.fileno(), size)  # lives on without its name until the arrays are gone
        counts = np.frombuffer(pages, np.uint32, slots, offset=8 * slots) if self._counted else None
        return np.frombuffer(pages, np.uint64, slots), counts

    def close(self) -> None:
        self._keys, self._counts = np.zeros(1, np.uint64), None
        self.size = 0


_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(keys: Keys) -> Keys:
    """splitmix64's finaliser (Steele et al. 2014): keys that are not hashes yet spread over the table."""
    mixed = keys ^ (keys >> np.uint64(30))
    mixed *= np.uint64(_FIRST)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_SECOND)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _unmix(mixed: Keys) -> Keys:
    """The keys again: every step can be taken back."""
    keys = _unshift(mixed, 31) * np.uint64(pow(_SECOND, -1, 1 << 64))
    keys = _unshift(keys, 27) * np.uint64(pow(_FIRST, -1, 1 << 64))
    return _unshift(keys, 30)


def _unshift(x: Keys, by: int) -> Keys:
    """The y of which x is y ^ (y >> by), for `by` over 21."""
    return x ^ (x >> np.uint64(by)) ^ (x >> np.uint64(2 * by))

"""Which rows may be equal to others: a first pass finds the keys that come again, and only these are numbered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlcli.curation.key_runs import KeyRuns
from vlcli.curation.key_set import KeySet
from vlcli.records.identity import Unnamed

_UNKNOWN, _KEYS = "unknown", "repeated.npy"


class RepeatedRows:
    """`add` all rows, `finish`, then ask `known`. Shared among processes as a Survey is (survey.py)."""

    def __init__(self) -> None:
        self._runs = KeyRuns()
        self._is_seen = self._is_unknown = False
        self.known: KeySet | None = None  # keys that more than one row has; None: any may be one

    def add(self, unnamed: Unnamed) -> None:
        """The rows of a batch that have no id."""
        self._runs.add(unnamed.keys)
        self._is_seen = True

    def give_up(self) -> None:
        """Rows came whose keys cost too much to be made twice: nothing is known of any."""
        self._is_unknown = True

    def save(self, folder: Path) -> None:
        self._runs.save(folder)
        if self._is_unknown:
            (folder / _UNKNOWN).touch()

    def merge(self, folders: Sequence[Path]) -> None:
        self._runs.merge(folders)
        self._is_unknown |= any((folder / _UNKNOWN).exists() for folder in folders)

    def finish(self) -> None:
        if self._is_seen and not self._is_unknown:
            self.known = KeySet(self._runs.where(lambda counts: counts > 1))
        self._runs.close()

    def freeze(self, folder: Path) -> None:
        if self.known is not None:
            np.save(folder / _KEYS, self.known.keys)

    def thaw(self, folder: Path) -> None:
        if (folder / _KEYS).exists():
            self.known = KeySet(np.load(folder / _KEYS, mmap_mode="r"))

    def close(self) -> None:
        self._runs.close()

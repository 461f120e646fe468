"""Texts that stand more often in the corpus than a bound lets them, exactly and in bounded memory.

Most texts stand once, and to count them all as strings would be work for nothing. A 64-bit key of each goes to
sorted runs, and the text to files beside them. At the end the keys alone are counted, and only texts whose key came
too often are counted as strings: two texts that share a key are told apart there.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.key_set import Keys, KeySet
from vlcli.curation.text_frequency import COUNT, PLAIN, plain
from vlcli.records.digest import key64

_KEY = "key"
_SCHEMA: dict[str, Any] = {PLAIN: pl.String(), COUNT: pl.Int64()}


class Repeats:
    """`add` texts, then ask `over` once. A context manager, whose files go when it closes.

    `held_bytes` of texts and `run_keys` keys are held before they go to disk; `range_keys` keys are counted at once.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        held_bytes: int = 24 << 20,
        run_keys: int = 1 << 21,
        range_keys: int = 1 << 23,
    ) -> None:
        self._parent = directory
        self._held_bytes, self._run_keys, self._range_keys = held_bytes, run_keys, range_keys
        self._texts: list[pl.DataFrame] = []
        self._texts_bytes = 0
        self._keys: list[Keys] = []
        self._keys_held = 0
        self._files: dict[str, list[Path]] = {"keys": [], "texts": []}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Repeats:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and files back."""
        self._texts, self._keys, self._files = [], [], {"keys": [], "texts": []}
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, texts: pl.DataFrame) -> None:
        """`texts` has `row` (equal within a row of this call) and `text`; a row counts a text once."""
        frame = texts.select("row", plain())
        if frame["row"].n_unique() < frame.height:
            frame = frame.unique()
        keys = key64(frame[PLAIN])
        frame = frame.select(pl.Series(_KEY, keys), PLAIN)
        self._texts.append(frame)
        self._keys.append(keys)
        self._texts_bytes += int(frame.estimated_size())
        self._keys_held += len(keys)
        if self._texts_bytes >= self._held_bytes:
            self._put_texts()
        if self._keys_held >= self._run_keys:
            self._put_keys()

    def save(self, folder: Path) -> None:
        """Move all that was counted to `folder`, for the `merge` of another; to be asked for once, at the end."""
        self._put_texts()
        self._put_keys()
        for paths in self._files.values():
            for path in paths:
                shutil.move(path, folder / path.name)

    def merge(self, folders: Sequence[Path]) -> None:
        """Count in what others have saved; their folders must stand until `over`."""
        for folder in folders:
            for kind, paths in self._files.items():
                paths += sorted(folder.glob(f"{kind}-*"))

    def over(self, bound: Bound) -> pl.DataFrame:
        """The texts whose count is not within the upper `bound`, PLAIN and COUNT, the most frequent first."""
        known = KeySet(self._keys_over(bound))
        counted, height = [pl.DataFrame(schema=_SCHEMA)], 0
        for frame in self._all_texts():
            rows, _ = known.find(frame[_KEY].to_numpy())
            counted.append(frame[rows].group_by(PLAIN).agg(pl.len().cast(pl.Int64()).alias(COUNT)))
            if sum(part.height for part in counted) > 2 * height + (1 << 18):
                counted = [_sum(counted)]
                height = counted[0].height
        found = _sum(counted)
        # Copied: a filtered column of strings keeps the memory of all of them alive.
        found = found.filter(~bound.holds(pl.col(COUNT))).sort([COUNT, PLAIN], descending=[True, False])
        return pl.DataFrame(found.to_arrow(compat_level=pl.CompatLevel.oldest())).cast(_SCHEMA)  # type: ignore[arg-type]

    def _keys_over(self, bound: Bound) -> Keys:
        """Keys that came more often than the bound lets them, in order."""
        runs: list[Keys] = [np.load(path, mmap_mode="r") for path in self._files["keys"]]
        if self._keys:
            runs.append(np.sort(np.concatenate(self._keys)))
        ranges = math.ceil(sum(map(len, runs)) / self._range_keys)
        edges = np.array([number * (1 << 64) // max(1, ranges) for number in range(1, ranges)], np.uint64)
        cuts = [[0, *np.searchsorted(run, edges).tolist(), len(run)] for run in runs]
        found = [np.zeros(0, np.uint64)]
        for number in range(ranges):
            parts = [run[cut[number] : cut[number + 1]] for run, cut in zip(runs, cuts, strict=True)]
            keys = np.sort(np.concatenate(parts))
            starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
            counts = np.diff(np.append(starts, len(keys)))
            found.append(keys[starts[~bound.holds(counts)]])
        return np.concatenate(found)

    def _all_texts(self) -> Iterator[pl.DataFrame]:
        for path in self._files["texts"]:
            yield pl.read_ipc(path)
        yield from self._texts

    def _put_texts(self) -> None:
        if self._texts:
            pl.concat(self._texts).write_ipc(self._file("texts"), compression="uncompressed")
        self._texts, self._texts_bytes = [], 0

    def _put_keys(self) -> None:
        if self._keys:
            with self._file("keys").open("wb") as file:
                np.save(file, np.sort(np.concatenate(self._keys)))
        self._keys, self._keys_held = [], 0

    def _file(self, kind: str) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vlcli-counts-", dir=self._parent)
        path = Path(self._folder.name) / f"{kind}-{len(self._files[kind])}"
        self._files[kind].append(path)
        return path


def _sum(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by(PLAIN).agg(pl.col(COUNT).sum())

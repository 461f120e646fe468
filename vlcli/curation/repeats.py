"""Texts that stand more often in the corpus than a bound lets them, exactly and in bounded memory.

Most texts stand once, and to count them all as strings would be work for nothing. A 64-bit key of each goes to
sorted runs, and the text to files beside them. At the end the keys alone are counted, and only texts whose key came
too often are counted as strings: two texts that share a key are told apart there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.key_runs import KeyRuns
from vlcli.curation.key_set import KeySet
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
        range_keys: int = 1 << 22,
    ) -> None:
        self._parent = directory
        self._held_bytes = held_bytes
        self._keys = KeyRuns(directory, run_keys=run_keys, range_keys=range_keys)
        self._texts: list[pl.DataFrame] = []
        self._texts_bytes = 0
        self._files: list[Path] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Repeats:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and files back."""
        self._texts, self._files = [], []
        self._keys.close()
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
        self._keys.add(keys)
        self._texts_bytes += int(frame.estimated_size())
        if self._texts_bytes >= self._held_bytes:
            self._put_texts()

    def save(self, folder: Path) -> None:
        """Move all that was counted to `folder`, for the `merge` of another; to be asked for once, at the end."""
        self._keys.save(folder)
        self._put_texts()
        for path in self._files:
            shutil.move(path, folder / path.name)

    def merge(self, folders: Sequence[Path]) -> None:
        """Count in what others have saved; their folders must stand until `over`."""
        self._keys.merge(folders)
        self._files += [path for folder in folders for path in sorted(folder.glob("texts-*"))]

    def over(self, bound: Bound) -> pl.DataFrame:
        """The texts whose count is not within the upper `bound`, PLAIN and COUNT, the most frequent first."""
        known = KeySet(self._keys.where(lambda counts: ~bound.holds(counts)))
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

    def _all_texts(self) -> Iterator[pl.DataFrame]:
        for path in self._files:
            yield pl.read_ipc(path)
        yield from self._texts

    def _put_texts(self) -> None:
        if self._texts:
            pl.concat(self._texts).write_ipc(self._file(), compression="uncompressed")
        self._texts, self._texts_bytes = [], 0

    def _file(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vlcli-counts-", dir=self._parent)
        path = Path(self._folder.name) / f"texts-{len(self._files)}"
        self._files.append(path)
        return path


def _sum(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by(PLAIN).agg(pl.col(COUNT).sum())

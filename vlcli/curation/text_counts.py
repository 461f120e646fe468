"""How often each text stands in the corpus, exactly and in bounded memory.

Texts are spilled to files by a hash; each file then is counted alone, as strings. What stays in memory is one
such file, and the texts over the bound: at most corpus / bound of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.text_frequency import COUNT, PLAIN, plain
from vlcli.records.digest import key64

_SCHEMA: dict[str, Any] = {PLAIN: pl.String(), COUNT: pl.Int64()}
_DEEPEST = 3  # 64^4 buckets; beyond it a bucket is large because one batch of spills is


class TextCounts:
    """Counts texts; a context manager, whose files go when it closes.

    `flush_bytes` of texts are held before they go to disk, and a bucket larger than `bucket_bytes` on disk is
    split again before it is counted.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        buckets: int = 64,
        flush_bytes: int = 24 << 20,
        bucket_bytes: int = 128 << 20,
    ) -> None:
        self._parent = directory
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._buckets, self._flush_bytes, self._bucket_bytes = buckets, flush_bytes, bucket_bytes
        self._held: list[pl.DataFrame] = []
        self._held_bytes = 0
        self._spill: _Spill | None = None
        self._saved: list[Path] = []

    def __enter__(self) -> TextCounts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and files back."""
        self._held, self._held_bytes = [], 0
        if self._spill is not None:
            self._spill.close()
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, texts: pl.DataFrame) -> None:
        """`texts` has `row` (equal within a row of this call) and `text`; a row counts a text once."""
        frame = texts.select("row", plain())
        if frame["row"].n_unique() < frame.height:
            frame = frame.unique()
        self.add_counts(frame.select(PLAIN, pl.lit(1, pl.Int64()).alias(COUNT)))

    def add_counts(self, frame: pl.DataFrame) -> None:
        """`frame` has PLAIN and COUNT (Int64): strings as they are to be told apart, and how often each came here."""
        self._held.append(frame)
        self._held_bytes += int(frame.estimated_size())
        if self._held_bytes >= self._flush_bytes:
            self._held = [_merge(self._held)]
            self._held_bytes = int(self._held[0].estimated_size())
            if self._held_bytes > self._flush_bytes // 2:  # words soon repeat, and need not go to disk
                self._flush()

    def save(self, folder: Path) -> None:
        """Move all that was counted to `folder`, for the `merge` of another; to be asked for once, at the end."""
        self._flush()
        assert self._spill is not None
        self._spill.close()
        for number in range(self._buckets):
            for place, path in enumerate(self._spill.paths(number, self._saved)):
                shutil.move(path, folder / f"{number}.{place}.arrows")

    def merge(self, folders: Sequence[Path]) -> None:
        """Count in what others, with as many buckets, have saved."""
        self._saved += folders

    def over(self, bound: Bound) -> pl.DataFrame:
        """The texts whose count is not within `bound`, with their counts, the most frequent first."""
        parts = [_beyond(part, bound) for part in self.counted()]
        found = pl.concat(parts) if parts else pl.DataFrame(schema=_SCHEMA)
        return found.sort([COUNT, PLAIN], descending=[True, False])

    def counted(self) -> Iterator[pl.DataFrame]:
        """All texts with their counts, each in exactly one of the frames; to be asked for once, at the end."""
        if self._spill is not None or self._saved:
            self._flush()
            assert self._spill is not None
            yield from self._spill.counted(self._bucket_bytes, self._saved)
        elif self._held:
            yield _merge(self._held)

    def _flush(self) -> None:
        if self._spill is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vlcli-counts-", dir=self._parent)
            self._spill = _Spill(Path(self._folder.name), self._buckets)
        if self._held:
            self._spill.write(_merge(self._held))
        self._held, self._held_bytes = [], 0


def _merge(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by(PLAIN).agg(pl.col(COUNT).sum())


def _beyond(counts: pl.DataFrame, bound: Bound) -> pl.DataFrame:
    """The texts over the bound, copied: a filtered column of strings keeps the memory of all of them alive."""
    found = counts.filter(~bound.holds(pl.col(COUNT))).to_arrow(compat_level=pl.CompatLevel.oldest())
    return pl.DataFrame(found).cast(_SCHEMA)  # type: ignore[arg-type]


class _Spill:
    """Files of (text, count), one for each value of a hash of the text."""

    def __init__(self, folder: Path, buckets: int, depth: int = 0) -> None:
        self._folder, self._buckets, self._depth = folder, buckets, depth
        self._files: dict[int, Any] = {}

    def path(self, bucket: int) -> Path:
        return self._folder / f"{bucket}.0.arrows"

    def paths(self, bucket: int, others: Sequence[Path]) -> list[Path]:
        """The files of a bucket, here and in the folders of others."""
        own = [self.path(bucket)] if bucket in self._files else []
        return own + [path for folder in others for path in sorted(folder.glob(f"{bucket}.*.arrows"))]

    def write(self, frame: pl.DataFrame) -> None:
        import pyarrow as pa

        # The hash only deals texts out, the same text always to the same file; it decides nothing.
        bucket = pl.Series("b", key64(frame[PLAIN], self._depth) % self._buckets)
        for (number,), part in frame.with_columns(bucket).partition_by("b", as_dict=True).items():
            table = part.drop("b").to_arrow(compat_level=pl.CompatLevel.oldest())
            if number not in self._files:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                path = str(self.path(number))
                self._files[number] = pa.ipc.new_stream(path, table.schema, options=options)
            self._files[number].write_table(table)

    def counted(self, bucket_bytes: int, others: Sequence[Path] = ()) -> Iterator[pl.DataFrame]:
        """Bucket by bucket, the texts and their counts; `others` are folders with further files of the buckets."""
        self.close()
        for number in range(self._buckets):
            paths = self.paths(number, others)
            if not paths:
                continue
            if sum(path.stat().st_size for path in paths) > bucket_bytes and self._depth < _DEEPEST:
                yield from self._split(number, paths, bucket_bytes)
            else:
                yield _merge([frame for path in paths for frame in _read(path)])
            if number in self._files:
                self.path(number).unlink()

    def _split(self, number: int, paths: list[Path], bucket_bytes: int) -> Iterator[pl.DataFrame]:
        folder = self._folder / str(number)
        folder.mkdir()
        finer = _Spill(folder, self._buckets, self._depth + 1)
        try:
            for path in paths:
                for frame in _read(path):
                    finer.write(frame)
            yield from finer.counted(bucket_bytes)
        finally:
            finer.close()

    def close(self) -> None:
        for file in self._files.values():
            if file is not None:
                file.close()
        self._files = dict.fromkeys(self._files)  # what is written stays, and no more comes


def _read(path: Path) -> Iterator[pl.DataFrame]:
    import pyarrow as pa

    with pa.ipc.open_stream(str(path)) as stream:
        for batch in stream:
            yield pl.DataFrame(pa.Table.from_batches([batch])).cast(_SCHEMA)  # type: ignore[arg-type]

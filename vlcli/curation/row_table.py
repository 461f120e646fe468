"""The rows that stand before the selections, as features: on disk, piece by piece, in the order of the input."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import polars as pl

from vlcli.curation.features import Names
from vlcli.errors import InputError, UsageError
from vlcli.records.atomic import sync_folder, write_json

PIECE_ROWS = 1 << 19
_ABOUT = "rows.json"


class RowTable:
    """`append` frames of features, then walk over the `pieces`. A context manager; its own files go when it closes.

    A piece goes to disk when it is full, so a small table stays in memory. `save` keeps a table under a name,
    and `of` opens tables that were saved as one, in the order given.
    """

    def __init__(self, *, piece_rows: int = PIECE_ROWS) -> None:
        self._piece_rows = piece_rows
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: list[Path] = []
        self._held: list[pl.DataFrame] = []
        self._held_rows = 0
        self.rows = 0

    def append(self, features: pl.DataFrame) -> None:
        if not features.height:
            return
        self._held.append(features)
        self._held_rows += features.height
        self.rows += features.height
        if self._held_rows >= self._piece_rows:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="vlcli-rows-")
            path = Path(self._folder.name) / f"{len(self._files):06}.arrow"
            self._write(path)
            self._files.append(path)

    def _write(self, path: Path) -> None:
        pl.concat(self._held).write_ipc(path, compression="uncompressed")  # hashes do not compress
        self._held, self._held_rows = [], 0

    def pieces(self) -> Iterator[pl.DataFrame]:
        for path in self._files:
            yield pl.read_ipc(path)
        if self._held:
            yield pl.concat(self._held)

    def save(self, folder: Path, names: Names, about: Mapping[str, Any]) -> None:
        """Write all rows to `folder`, which must not exist; `about` says for which selections they are."""
        if os.path.lexists(folder):
            raise UsageError(f"{folder} exists")
        folder.mkdir(parents=True)
        files = []
        for number, piece in enumerate(self.pieces()):
            files.append(f"{number:06}.arrow")
            piece.write_ipc(folder / files[-1], compression="uncompressed")
        sync_folder(folder)
        # Last: a folder without it is none.
        write_json(
            folder / _ABOUT, {"about": about, "rows": self.rows, "files": files, "names": names.state()}
        )

    @classmethod
    def of(cls, folders: Sequence[Path], about: Mapping[str, Any]) -> tuple[RowTable, Names, list[int]]:
        """The saved tables behind each other, what their values are called, and the rows of each.

        Raises InputError for a folder that is none or not whole, UsageError for one made for other selections.
        """
        table, names, numbers = cls(), Names(), []
        for folder in folders:
            try:
                saved = orjson.loads((folder / _ABOUT).read_bytes())
            except (OSError, orjson.JSONDecodeError):
                raise InputError(
                    "not what a part of the input has left here, or not whole", file=str(folder)
                ) from None
            if saved["about"] != orjson.loads(orjson.dumps(about)):
                raise UsageError(f"{folder} was made for other selections: {saved['about']}")
            table._files += [folder / name for name in saved["files"]]
            table.rows += saved["rows"]
            numbers.append(saved["rows"])
            names.merge(Names.of(saved["names"]))
        return table, names, numbers

    def close(self) -> None:
        self._held = []
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> RowTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

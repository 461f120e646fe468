"""Embeddings on disk in clip-retrieval's layout: img_emb/img_emb_N.npy and metadata/metadata_N.parquet, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from vlcli.errors import InputError, UsageError

FOLDERS = {"image": "img_emb", "text": "text_emb"}
METADATA = "metadata"
RECORD = "embed.json"  # what `embed` says of a directory that is whole
PRIVATE = "_vlcli"


def vector_file(what: str, part: int) -> str:
    return f"{FOLDERS[what]}/{FOLDERS[what]}_{part}.npy"


def metadata_file(part: int) -> str:
    return f"{METADATA}/{METADATA}_{part}.parquet"


class Vectors:
    """Rows of one or several (n, d) arrays, in memory or mapped from files; read as float32 of length 1."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.dim = self.parts[0].shape[1] if self.parts else 0

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def take(self, rows: np.ndarray) -> np.ndarray:
        """rows (m,) int64 → (m, d) float32, each divided by its length; a vector of zeros stays one."""
        if len(self.parts) == 1:
            found = np.asarray(self.parts[0][rows], np.float32)
        else:
            found = np.empty((len(rows), self.dim), np.float32)
            places = np.searchsorted(self._ends, rows, side="right")
            for place in np.unique(places):
                mine = places == place
                first = self._ends[place] - len(self.parts[place])
                found[mine] = self.parts[place][rows[mine] - first]
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise InputError("the embeddings hold values that are not finite")
        return found / np.maximum(lengths, np.finfo(np.float32).tiny)


class Embeddings(Vectors):
    """A directory of embeddings: `vlcli embed`'s, or clip-retrieval's own. The vectors stay on disk.

    Raises UsageError for what is no such directory, InputError where parts are missing or do not fit.
    """

    def __init__(self, path: Path | str, what: str = "image") -> None:
        self.path = Path(path)
        folder = self.path / FOLDERS[what]
        if not folder.is_dir():
            raise UsageError(
                f"{path}: no embeddings ({FOLDERS[what]}/ is missing)", remedy="vlcli embed makes them"
            )
        self.record = _record(self.path)
        numbers = sorted(int(m[1]) for f in folder.iterdir() if (m := re.fullmatch(r".*_(\d+)\.npy", f.name)))
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise InputError(f"parts are missing: there are {numbers}", file=str(folder))
        self._numbers = numbers
        arrays = [_array(self.path / vector_file(what, number)) for number in numbers]
        if len({array.shape[1] for array in arrays}) > 1:
            raise InputError("parts of different dimensions", file=str(folder))
        super().__init__(arrays)
        self._lengths = [len(array) for array in arrays]

    @property
    def encoder(self) -> dict[str, Any] | None:
        """What made the vectors; None where nothing says so."""
        return self.record.get("encoder")

    def metadata(self, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """These columns part by part, as lists; None throughout where a part does not have one."""
        for place in range(len(self._numbers)):
            table = self._table(place)
            yield {
                name: table[name].to_pylist() if name in table.column_names else [None] * table.num_rows
                for name in columns
            }

    def described(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """These columns of `rows`, in that order; only the parts that hold them are read."""
        ends = np.cumsum(self._lengths)
        places = np.searchsorted(ends, rows, side="right")
        found: list[dict[str, Any]] = [{} for _ in rows]
        for place in np.unique(places).tolist():
            table, first = self._table(place), int(ends[place]) - self._lengths[place]
            known = table.column_names
            for i in np.flatnonzero(places == place).tolist():
                at = rows[i] - first
                found[i] = {name: table[name][at].as_py() if name in known else None for name in columns}
        return found

    def _table(self, place: int) -> Any:
        """The metadata of a part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.path / metadata_file(self._numbers[place])
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise InputError(" ".join(str(error).split()), file=str(file)) from error
        length = self._lengths[place]
        if table.num_rows != length:
            raise InputError(f"{table.num_rows} rows beside {length} vectors", file=str(file))
        return table

    def ids(self) -> list[str] | None:
        """The id of every row; None where the metadata have none (clip-retrieval's own)."""
        found = [name for part in self.metadata(["id"]) for name in part["id"]]
        return None if any(name is None for name in found) else found


def _record(path: Path) -> dict[str, Any]:
    try:
        return orjson.loads((path / RECORD).read_bytes())
    except FileNotFoundError:
        if (path / PRIVATE).is_dir():
            raise InputError(
                f"not whole: {RECORD} is missing", file=str(path), remedy="run the same vlcli embed again"
            ) from None
        return {}
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}", file=str(path / RECORD)) from None


def _array(file: Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"not an array: {' '.join(str(error).split())}", file=str(file)) from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{array.dtype} of shape {array.shape}, not (n, d) floats", file=str(file))
    return array

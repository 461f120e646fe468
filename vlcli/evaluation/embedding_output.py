"""The directory that embeddings go into: claimed, filled part by part, declared whole at the end."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from vlcli import __version__
from vlcli.curation.embeddings import FOLDERS, METADATA, PRIVATE, RECORD, metadata_file, vector_file
from vlcli.errors import InputError, UsageError
from vlcli.records.atomic import atomic_file, check_folder, write_json

RUN = f"{PRIVATE}/run.json"
OWN = (*FOLDERS.values(), METADATA, PRIVATE, RECORD)  # what `--force` may remove


@dataclass
class Part:
    """What is known of a part that stands: `rows` input rows became `vectors`, the others are `bad`."""

    part: int
    rows: int
    vectors: int
    input: str  # fingerprint of the rows
    bad: list[tuple[int, str]] = field(default_factory=list)  # (row of the input, why)
    files: dict[str, int] = field(default_factory=dict)  # name → bytes


class RowsDigest:
    """The fingerprint of a part's rows."""

    def __init__(self) -> None:
        self._digest, self.rows = hashlib.sha256(), 0

    def add(self, fingerprint: bytes) -> None:
        self._digest.update(fingerprint)
        self.rows += 1

    def hex(self) -> str:
        return self._digest.hexdigest()[:32]


class EmbeddingOutput:
    """A claim on a directory, which a stopped run of the same command may have filled in part.

    `recorded` is what must be the same for its parts to be kept. Raises UsageError when it differs, when something
    else stands there, or when another process is writing into it.
    """

    def __init__(self, path: Path, recorded: dict[str, Any], *, force: bool = False) -> None:
        self.path, self.force = path, force
        self._recorded = {"version": __version__, **recorded}
        self._lock: IO[bytes] | None = None
        check_folder(path)
        occupied = path.is_dir() and any(path.iterdir())
        if occupied and not force and not (path / PRIVATE).is_dir():
            raise UsageError(f"{path}: not empty, and no embeddings", remedy="name another directory")
        self.standing: dict[int, Part] = {}
        marks = sorted((path / PRIVATE).glob("part-*.json"))
        if marks and not force:
            self._load(marks)

    def _load(self, marks: list[Path]) -> None:
        before = _read(self.path / RUN)
        for name, now in self._recorded.items():
            then = before.get(name)
            if then != now:
                raise UsageError(
                    f"{self.path}: begun with another {name}: {_shown(then)} then, {_shown(now)} now",
                    remedy="give the same, or --force to start anew",
                )
        for file in marks:
            part = Part(**_read(file))
            part.bad = [(int(row), str(cause)) for row, cause in part.bad]
            if all(_size(self.path / name) == size for name, size in part.files.items()):
                self.standing[part.part] = part

    def begin(self) -> None:
        """The first row has come: take the directory, and remove what is not to stay."""
        private = self.path / PRIVATE
        private.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / PRIVATE / "lock", "wb")  # noqa: SIM115 - until `close`
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{self.path}: another process is writing into it") from None
        (self.path / RECORD).unlink(missing_ok=True)  # first of all: nothing here claims to be whole now
        if self.force:
            for name in (*FOLDERS.values(), METADATA):
                shutil.rmtree(self.path / name, ignore_errors=True)
            for file in private.glob("*.json"):
                file.unlink()
        for leftover in (*self.path.glob("*/.*.tmp"), *self.path.glob(".*.tmp")):
            leftover.unlink(missing_ok=True)
        write_json(self.path / RUN, self._recorded, force=True)

    def commit(self, part: Part, arrays: dict[str, np.ndarray], metadata: dict[str, list[Any]]) -> None:
        """Write the part's files; it stands when the last one, its mark, does."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for what, array in arrays.items():
            with atomic_file(self.path / vector_file(what, part.part), force=True) as file:
                np.save(file, array, allow_pickle=False)
        table = pa.table({name: pa.array(values, pa.string()) for name, values in metadata.items()})
        with atomic_file(self.path / metadata_file(part.part), force=True) as file:
            pq.write_table(table, file)
        names = [*(vector_file(what, part.part) for what in arrays), metadata_file(part.part)]
        part.files = {name: os.path.getsize(self.path / name) for name in names}
        write_json(self._mark(part.part), part, force=True)

    def _mark(self, part: int) -> Path:
        return self.path / PRIVATE / f"part-{part:05d}.json"

    def finish(self, parts: list[Part], record: dict[str, Any]) -> dict[str, Any]:
        """All parts stand: write embed.json, the last file. Returns what it says."""
        more = sorted(set(self.standing) - {part.part for part in parts})
        if more:
            raise UsageError(
                f"{self.path}: part {more[0]} stands there, and the input ends before it",
                remedy="give the same input, or --force to start anew",
            )
        rows, vectors = sum(part.rows for part in parts), sum(part.vectors for part in parts)
        whole = {**record, "rows": rows, "vectors": vectors, "bad": rows - vectors, "parts": len(parts)}
        write_json(self.path / RECORD, {**whole, "version": __version__}, force=True)
        return whole

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _read(file: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(file.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return value
    except ValueError as error:
        raise InputError(f"damaged: {error}", file=str(file), remedy="--force to start anew") from None


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return -1


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()

"""Features of a checkpoint, computed once and kept on disk: `$VLCLI_CACHE/evaluation`, 20 GB at most.

A folder there belongs to all that a feature depends on but its own input: the checkpoint's hash, its similarity and
preprocessing, precision, kind of device, and the versions that computed it. In it stands a store of lists of vectors
for each kind of input (vector_store.py): images by the sha256 of their bytes, texts by that of their token ids. So a
picture that several data sets show, or several rows of one, is encoded once.

A feature keeps the last bits of the batch that it was computed in: the same data in the same batches has the same
numbers with a cache, old or new, as without one.

When there is no room left, folders that nobody uses go, the longest unused first; when there is none even then,
nothing more is kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlcli import __version__
from vlcli.cache import default_directory
from vlcli.errors import UsageError
from vlcli.evaluation.vector_store import KEY_BYTES, Vectors, VectorStore

LIMIT = 20 * 10**9  # bytes
FORMAT = 1  # to be raised when the same input gives another feature
_USED = "used"  # a process that uses a folder shares a lock on this file, whose time says when that was


def key_of(data: bytes) -> bytes:
    """What stands for an input in a store."""
    return hashlib.sha256(data).digest()[:KEY_BYTES]


def identity(model: Any, precision: str) -> dict[str, Any]:
    """All that a feature depends on but its own input."""
    import torch

    return {
        "format": FORMAT,
        "checkpoint": model.checkpoint_hash,
        "similarity": model.similarity_kind,
        "preprocess": model.config.image.preprocess.model_dump(mode="json"),
        "precision": precision,
        "device": torch.device(model.device).type,
        "versions": {"vlcli": __version__, "torch": torch.__version__},
    }


class FeatureCache:
    """`lists(what, keys, compute)` gives the features of each key, from the disk or computed and kept.

    `asked` and `found` count keys, by what they are of. `say` is told of damage, of a full disk and of a full cache.
    """

    def __init__(
        self,
        model: Any,
        directory: Path | None = None,
        *,
        precision: str = "fp32",
        limit: int = LIMIT,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """In `directory`, else in $VLCLI_CACHE/evaluation. Raises UsageError where there can be none."""
        assert model.checkpoint_hash, "features of weights that nobody has saved"
        self.directory = directory or default_directory("evaluation")
        self.limit, self._say = limit, say
        self.similarity: str = model.similarity_kind
        self.asked: dict[str, int] = {}
        self.found: dict[str, int] = {}
        said = json.dumps(identity(model, precision), sort_keys=True, indent=1)
        self.folder = self.directory / hashlib.sha256(said.encode()).hexdigest()[:32]
        self._stores: dict[str, VectorStore] = {}
        self._keeps = True
        try:
            self._use = _hold(self.folder)
            (self.folder / "about.json").write_text(said + "\n", encoding="utf-8")  # for people
            self._room = self.limit - sum(map(_size, _folders(self.directory)))
        except OSError as error:
            cause = error.strerror or type(error).__name__
            raise UsageError(
                f"{self.directory}: no cache can be here: {cause}", remedy="--cache off"
            ) from None

    def lists(
        self, what: str, keys: Sequence[bytes], compute: Callable[[list[int]], Sequence[Vectors]]
    ) -> list[Vectors]:
        """The vectors (n, d) of each key. `compute(places)` makes those of `keys[place]` that are missing, each once.

        `what` is of the caller's choice (image, text, …); what it has a feature be must depend on nothing else.
        """
        store = self._store(what)
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        known: dict[bytes, Vectors] = {}
        for key in first:
            if (kept := store.read(key)) is not None:
                known[key] = kept
        missing = sorted(place for key, place in first.items() if key not in known)
        self.asked[what] = self.asked.get(what, 0) + len(keys)
        self.found[what] = self.found.get(what, 0) + len(keys) - len(missing)
        if missing:
            made = compute(missing)
            known.update(zip((keys[place] for place in missing), made, strict=True))
            self._keep(store, [keys[place] for place in missing], made)
        return [known[key] for key in keys]

    def close(self) -> None:
        """Let others remove the folder."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()
        os.close(self._use)

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _store(self, what: str) -> VectorStore:
        if what not in self._stores:
            self._stores[what] = VectorStore(self.folder / what, say=self._say)
        return self._stores[what]

    def _keep(self, store: VectorStore, keys: list[bytes], lists: Sequence[Vectors]) -> None:
        if not self._keeps:
            return
        need = sum(vectors.nbytes for vectors in lists)
        if need > self._room:
            self._make_room(need)
        if need > self._room:
            self._stop(f"it has {self.limit / 1e9:g} GB, all of them in use")
            return
        try:
            self._room -= store.append(keys, lists)
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)

    def _stop(self, cause: str) -> None:
        self._keeps = False
        self._say(f"{self.directory}: {cause}: no more features are kept")

    def _make_room(self, need: int) -> None:
        """Remove folders, the longest unused first, until `need` bytes fit."""
        folders = [folder for folder in _folders(self.directory) if folder != self.folder]
        self._room = self.limit - _size(self.folder) - sum(map(_size, folders))
        for folder in sorted(folders, key=_last_use):
            if need <= self._room:
                return
            size = _size(folder)
            if _remove(folder):
                self._room += size


def _hold(folder: Path) -> int:
    """Share the lock of a folder, which is made; a file descriptor."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _USED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(folder / _USED), os.fstat(handle)):
                os.utime(handle)
                return handle
        os.close(handle)  # another process has removed it between the two


def _remove(folder: Path) -> bool:
    """Remove a folder that nobody uses."""
    try:
        handle = os.open(folder / _USED, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _folders(directory: Path) -> list[Path]:
    return [entry for entry in directory.iterdir() if (entry / _USED).is_file()]


def _last_use(folder: Path) -> float:
    try:
        return (folder / _USED).stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes of a cache's folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total

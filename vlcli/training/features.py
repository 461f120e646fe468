"""Features of a locked tower, computed once per image and kept on disk (design §4).

A store is a folder of two append-only files: `features.bin` (fixed-size rows) and `keys.bin` (sha256 of the image
bytes, 32 bytes a row). Rows are written and synced before their keys, so that a killed process leaves at worst rows
without keys, which the next one cuts off. The folder's name is a fingerprint of everything that a feature depends on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlcli.errors import InputError
from vlcli.images.decode import decode
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.shards.pair_table import PairTable

Progress = Callable[[int, int], None]  # images done, images to do
KEY_BYTES = 32
CHUNK = 64
DECODERS = 4  # threads


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def fingerprint(model: DualEncoder, dtype: np.dtype[Any]) -> str:
    """32 hex over the tower's tensors, preprocessing, what is kept of the output, and its precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.image.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    kept = "tokens+pooled" if model.reads_tokens else "pooled"
    image = model.config.image
    settings: list[Any] = [image.name, image.preprocess.model_dump(mode="json"), kept, dtype.str]
    departures = image.model_dump(
        include={"arguments", "pooling", "eps", "final_norm", "head_conv"}, exclude_defaults=True
    )
    if departures:
        settings.append(departures)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def row_of(model: DualEncoder, precision: str) -> tuple[tuple[int, int], np.dtype[Any]]:
    """(1 + n1, c) and type of what is kept of an image: the pooled vector, then the patch tokens; of a global model the
    pooled vector alone. The model may be on the meta device."""
    tokens = model.grid[0] * model.grid[1] if model.reads_tokens else 0
    return (1 + tokens, model.image.width), np.dtype(np.float32 if precision == "fp32" else np.float16)


def bytes_of(model: DualEncoder, precision: str) -> int:
    """What an image takes on disk."""
    (rows, width), kind = row_of(model, precision)
    return rows * width * kind.itemsize + KEY_BYTES


class FeatureStore:
    """Features by image. `rows(table)` maps a table's rows to rows of the store; `take(rows)` reads them.

    A row is as `row_of` says.
    """

    def __init__(self, model: DualEncoder, directory: Path, *, precision: str) -> None:
        self.model = model
        self.shape, self.dtype = row_of(model, precision)
        self.row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.folder = directory / fingerprint(model, self.dtype)
        self._index: dict[bytes, int] = {}
        self._rows = 0
        self._features: np.ndarray | None = None

    def missing_bytes(self, images: int) -> int:
        """What `images` new images would take on disk."""
        return images * (self.row_bytes + KEY_BYTES)

    def add(
        self,
        table: PairTable,
        *,
        progress: Progress | None = None,
        bad: Callable[[int, str], None] | None = None,
    ) -> np.ndarray:
        """Encode what is not there yet; returns the store's row of each of the table's rows (n,) int64.

        A row whose image cannot be had is −1 and told to `bad` with the cause, in the table's order; without `bad` it
        raises InputError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        causes: dict[int, str] = {}
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._load_keys(cut=True)
            keys = self._keys_of(table, causes)
            first: dict[bytes, int] = {}
            for i, key in enumerate(keys):
                if key not in self._index and i not in causes:
                    first.setdefault(key, i)
            if first:
                self._encode(table, first, progress, causes)
        self._map()
        by_key = {keys[i]: cause for i, cause in causes.items() if keys[i]}
        for i, key in enumerate(keys):
            if key in by_key:
                causes[i] = by_key[key]
        for i, cause in sorted(causes.items()):
            if bad is None:
                raise InputError(f"image of {table.ids[i]}: {cause}", file=table.source)
            bad(i, cause)
        return np.array([self._index.get(key, -1) for key in keys], dtype=np.int64)

    @staticmethod
    def _keys_of(table: PairTable, causes: dict[int, str]) -> list[bytes]:
        """sha256 of each row's image; nothing where it cannot be read."""
        keys = []
        for i in range(len(table)):
            try:
                keys.append(hashlib.sha256(table.image_bytes(i)).digest())
            except (InputError, OSError) as error:
                causes[i] = _cause(error)
                keys.append(b"")
        return keys

    def _load_keys(self, *, cut: bool) -> None:
        keys, features = self.folder / "keys.bin", self.folder / "features.bin"
        for file in (keys, features):
            file.touch()
        rows = min(keys.stat().st_size // KEY_BYTES, features.stat().st_size // self.row_bytes)
        if cut:
            os.truncate(keys, rows * KEY_BYTES)
            os.truncate(features, rows * self.row_bytes)
        data = keys.read_bytes()[: rows * KEY_BYTES]
        self._index = {data[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(rows)}
        self._rows = rows  # not len(index): after a power cut keys may be holes, equal to each other

    def _encode(
        self, table: PairTable, first: dict[bytes, int], progress: Progress | None, causes: dict[int, str]
    ) -> None:
        """Append the features of one row of each key; the next pictures are decoded while the tower computes."""
        todo = list(first.items())
        parts = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
        done = 0
        with (
            open(self.folder / "features.bin", "ab") as features,
            open(self.folder / "keys.bin", "ab") as keys,
            ThreadPoolExecutor(DECODERS, "decode") as pool,
        ):
            ahead = [pool.submit(self._pixels_of, table, i) for _, i in parts[0]]
            for number, part in enumerate(parts):
                here, ahead = ahead, []
                if number + 1 < len(parts):
                    ahead = [pool.submit(self._pixels_of, table, i) for _, i in parts[number + 1]]
                decoded = [(key, i, future.result()) for (key, i), future in zip(part, here, strict=True)]
                causes.update({i: pixels for _, i, pixels in decoded if isinstance(pixels, str)})
                whole = [(key, pixels) for key, _, pixels in decoded if not isinstance(pixels, str)]
                if whole:
                    rows = self._rows_of(torch.stack([pixels for _, pixels in whole]))
                    features.write(rows.tobytes())
                    features.flush()
                    os.fsync(features.fileno())
                    keys.write(b"".join(key for key, _ in whole))
                    keys.flush()
                for key, _ in whole:
                    self._index[key] = self._rows
                    self._rows += 1
                done += len(part)
                if progress is not None:
                    progress(done, len(todo))

    def _pixels_of(self, table: PairTable, row: int) -> torch.Tensor | str:
        """(3, h, w), or why they cannot be had."""
        try:
            return self.model.preprocess(decode(table.image_bytes(row)))
        except (ValueError, OSError) as error:
            return _cause(error)

    @torch.inference_mode()
    def _rows_of(self, pixels: torch.Tensor) -> np.ndarray:
        """(b, 3, h, w) → (b, rows, c) in the store's type."""
        out = self.model.image(pixels.to(self.model.device))
        rows = out.pooled[:, None]
        if self.shape[0] > 1:
            rows = torch.cat([rows, out.tokens], 1)
        array = rows.float().cpu().numpy().astype(self.dtype)
        if not np.isfinite(array).all():
            raise InputError(
                "the image tower gives features that are not finite", remedy="--set data.cache=off"
            )
        return array

    def _map(self) -> None:
        if not self._rows:
            self._features = np.empty((0, *self.shape), self.dtype)  # an empty file cannot be mapped
            return
        self._features = np.memmap(
            self.folder / "features.bin", dtype=self.dtype, mode="r", shape=(self._rows, *self.shape)
        )

    def take(self, rows: Sequence[int] | np.ndarray) -> ImageFeatures:
        """Rows of the store as float32 on the CPU: tokens (b, n1, c), empty for a global model; pooled (b, c)."""
        assert self._features is not None, "add() comes first"
        data = torch.from_numpy(np.asarray(self._features[np.asarray(rows)], dtype=np.float32))
        return ImageFeatures(data[:, 1:], data[:, 0])

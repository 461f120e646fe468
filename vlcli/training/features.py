"""Features of a locked tower, computed once per image and kept on disk (design §4).

Rows of `features.bin` (row_store.py) by the sha256 of the image's bytes; the folder's name is a fingerprint of
everything that a feature depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlcli.errors import InputError
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.shards.pairs import PairTable
from vlcli.training.row_store import Progress, RowStore


def default_directory(kind: str = "features") -> Path:
    """`$VLCLI_CACHE`, else `vlcli` in the user's cache directory; each kind in a folder of it."""
    base = (
        os.environ.get("VLCLI_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vlcli"
    )
    return Path(base) / kind


def fingerprint(model: DualEncoder, dtype: np.dtype[Any]) -> str:
    """32 hex over the tower's tensors, preprocessing, what is kept of the output, and its precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.image.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    kept = "pooled" if model.config.similarity == "global" else "tokens+pooled"
    image = model.config.image
    settings: list[Any] = [image.name, image.preprocess.model_dump(mode="json"), kept, dtype.str]
    departures = image.model_dump(
        include={"arguments", "pooling", "eps", "final_norm", "head_conv"}, exclude_defaults=True
    )
    if departures:
        settings.append(departures)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:32]


class FeatureStore:
    """Features by image. `add(table)` maps a table's rows to rows of the store; `take(rows)` reads them.

    A row is (1 + n1, c): the pooled vector, then the patch tokens; a global model keeps the pooled vector alone.
    """

    def __init__(self, model: DualEncoder, directory: Path, *, precision: str) -> None:
        self.model = model
        dtype = np.dtype(np.float16 if precision == "bf16" else np.float32)
        tokens = 0 if model.config.similarity == "global" else model.grid[0] * model.grid[1]
        self.folder = directory / fingerprint(model, dtype)
        self._rows = RowStore(self.folder, "features", (1 + tokens, model.image.width), dtype, key_bytes=32)

    def missing_bytes(self, images: int) -> int:
        """What `images` new images would take on disk."""
        return self._rows.missing_bytes(images)

    def add(self, table: PairTable, *, progress: Progress | None = None) -> np.ndarray:
        """Encode what is not there yet; returns the store's row of each of the table's rows (n,) int64."""
        keys = [hashlib.sha256(table.image_bytes(i)).digest() for i in range(len(table))]
        return self._rows.add(keys, lambda rows: self._encode(table, rows), progress=progress)

    @torch.inference_mode()
    def _encode(self, table: PairTable, rows: Sequence[int]) -> np.ndarray:
        """(b, 1 + n1, c) in the store's type."""
        from vlcli.evaluation.embed import decode_row

        pixels = torch.stack([self.model.preprocess(decode_row(table, row)) for row in rows])
        out = self.model.image(pixels.to(self.model.device))
        found = out.pooled[:, None]
        if self._rows.shape[0] > 1:
            found = torch.cat([found, out.tokens], 1)
        array = found.float().cpu().numpy().astype(self._rows.dtype)
        if not np.isfinite(array).all():
            raise InputError(
                "the image tower gives features that are not finite", remedy="--set data.cache=off"
            )
        return array

    def take(self, rows: Sequence[int] | np.ndarray) -> ImageFeatures:
        """Rows of the store as float32 on the CPU: tokens (b, n1, c), empty for a global model; pooled (b, c)."""
        data = torch.from_numpy(self._rows.take(rows))
        return ImageFeatures(data[:, 1:], data[:, 0])

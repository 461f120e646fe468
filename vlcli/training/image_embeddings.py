"""The image embeddings of a fixed dual encoder, from features that are computed once and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlcli.cache import default_directory
from vlcli.errors import UsageError
from vlcli.models.dual import DualEncoder
from vlcli.schemas.parts import DataConfig
from vlcli.shards.pair_table import PairTable
from vlcli.training.features import FeatureStore, Progress
from vlcli.training.processes import on_main

BLOCK = 4096  # rows that are looked at together


class ImageEmbeddings:
    """`places = add(table)`, then `at(places)`. `cache` of the recipe says where features are kept; "off": in a
    temporary directory, for they are computed once in any case."""

    def __init__(self, encoder: DualEncoder, config: DataConfig, *, precision: str) -> None:
        self.encoder = encoder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if config.cache == "off":
            self._temporary = tempfile.TemporaryDirectory(prefix="vlcli-")
            folder = Path(self._temporary.name)
        else:
            folder = default_directory("features") if config.cache == "auto" else Path(config.cache)
        self.store = FeatureStore(encoder, folder, precision=precision)
        self.most = config.cache_gib * 2**30

    def add(self, table: PairTable, progress: Progress | None = None) -> np.ndarray:
        """(n,) int64: where each row's features are; rank 0 computes, and the others where they do not see its disk.
        InputError for a picture that cannot be had, UsageError where they would take more than the recipe allows."""
        need = self.store.missing_bytes(table.images)
        if need > self.most:
            raise UsageError(
                f"features of {table.images} images would take {need / 2**30:.1f} GiB, more than data.cache_gib",
                remedy=f"--set data.cache_gib={need / 2**30 + 1:.0f}",
            )
        mine: list[np.ndarray] = []
        on_main(lambda: mine.append(self.store.add(table, progress=progress)))
        return mine[0] if mine else self.store.add(table)

    @torch.no_grad()
    def at(self, places: Sequence[int] | np.ndarray) -> Tensor:
        """(b, d) of length 1, on the encoder's device."""
        features = self.store.take(places)
        moved = type(features)(*(x.to(self.encoder.device) for x in features))
        pooled = self.encoder.project_image(moved).pooled
        assert pooled is not None
        return pooled

    def moments(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (d,) over the rows, in float64 and back; 1 for what does not vary."""
        parts = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
        total = sum(self.at(part).double().sum(0) for part in parts)
        mean = torch.as_tensor(total) / len(places)
        square = sum((self.at(part).double() - mean).square().sum(0) for part in parts)
        deviation = (torch.as_tensor(square) / len(places)).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
        return mean.float(), deviation.float()

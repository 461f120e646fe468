"""Batches of pictures and their classes, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.images.augment import Augment
from vlcli.images.preprocess import Preprocess
from vlcli.schemas.classification import ClassifyDataConfig
from vlcli.shards.pair_table import PairTable
from vlcli.training.bad_pairs import BadPairs
from vlcli.training.loader import wanted
from vlcli.training.order import Order, share
from vlcli.training.pictures import pictures


class ClassTable(NamedTuple):
    """Rows and their classes: `labels` (n,) int64, each a place among the classes."""

    table: PairTable
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def and_(self, other: ClassTable) -> ClassTable:
        """The rows of both; `frame` stays behind."""
        table = PairTable(f"{self.table.source} {other.table.source}")
        table.extend(self.table)
        table.extend(other.table)
        return ClassTable(table, torch.cat([self.labels, other.labels]))


@dataclass
class ClassBatch:
    """One step's share of a process."""

    pixels: Tensor  # (b, h, w, 3) uint8 from the loader; (b, 3, h, w) as a tower reads them after `to`
    labels: Tensor  # (b,)
    pair_ids: list[str]  # of the global batch

    def to(self, device: torch.device, preprocess: Preprocess) -> ClassBatch:
        pixels = preprocess.normalise(self.pixels.to(device))
        return replace(self, pixels=pixels, labels=self.labels.to(device))


class ClassLoader:
    """Batches of `data` from any step on: `batches(start, stop)`. A picture that cannot be had ends the run with an
    InputError, on every process."""

    def __init__(
        self,
        data: ClassTable,
        preprocess: Preprocess,
        config: ClassifyDataConfig,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if config.batch_size % world:
            raise UsageError(f"data.batch_size {config.batch_size} is not a multiple of {world} processes")
        self.data, self.preprocess, self.config, self.seed = data, preprocess, config, seed
        self.device, self.rank, self.world = device, rank, world
        self.order = Order(len(data), config, seed=seed)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.bad = BadPairs("0", len(data), lambda text: None)

    def batches(self, start: int, stop: int) -> Iterator[ClassBatch]:
        """Steps start … stop − 1."""
        steps, table = range(start, stop), self.data.table
        if not steps:
            return
        whose = {"seed": self.seed, "rank": self.rank, "world": self.world}
        found = pictures(
            lambda: wanted(table, self.order, steps, **whose),
            Augment(self.config.augment, self.preprocess, area=self.config.crop_area),
            workers=self.config.workers,
            pin_memory=self.device.type == "cuda",
        )
        for step, batch in zip(steps, found, strict=True):
            rows = self.order.step(step).rows
            local, names = share(len(rows), self.rank, self.world), table.ids.take(rows)
            mine = {local.start + place: cause for place, cause in batch.bad.items()}
            bad = self.bad.exchange(mine, self.device)
            self.bad.add([(names[place], cause) for place, cause in sorted(bad.items())])
            yield ClassBatch(batch.pixels, self.data.labels[torch.from_numpy(rows[local])], names)

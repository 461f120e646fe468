"""Global batches in an order that depends on the seed and the epoch alone, never on ranks or workers."""

from __future__ import annotations

import random
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlcli.errors import InputError, UsageError
from vlcli.images.augment import Augment
from vlcli.images.preprocess import Preprocess
from vlcli.models.dropout import pair_key
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.schemas.parts import DataConfig, PairsConfig
from vlcli.shards.pair_table import PairTable
from vlcli.shards.rows import ZERO_FIELDS
from vlcli.training.bad_pairs import BadPairs
from vlcli.training.features import FeatureStore
from vlcli.training.order import Order, share
from vlcli.training.pictures import Pictures, Wanted, pictures
from vlcli.training.processes import fail


@dataclass
class TrainingBatch:
    """One step's share of a process, and the identities of the whole global batch.

    `codes` (3, N): image, text and group of every pair of the global batch as integers, −1 for no group.
    """

    ids: Tensor  # (b, n) token ids
    mask: Tensor  # (b, n)
    keys: Tensor  # (b,) int64 of (seed, epoch, id): what dropout is drawn from
    features: ImageFeatures | None
    pixels: Tensor | None  # (b, h, w, 3) uint8 from the loader; (b, 3, h, w) as a tower reads them after `to`
    codes: Tensor
    local: slice  # my rows of the global batch
    pair_ids: list[str]  # of the global batch

    def only(self, kept: Sequence[int]) -> TrainingBatch:
        """The batch of those pairs alone, by their places in the global one, in order."""
        first, last = bisect_left(kept, self.local.start), bisect_left(kept, self.local.stop)
        mine = torch.tensor([place - self.local.start for place in kept[first:last]], dtype=torch.int64)
        return replace(
            self,
            ids=self.ids[mine],
            mask=self.mask[mine],
            keys=self.keys[mine],
            features=None if self.features is None else ImageFeatures(*(x[mine] for x in self.features)),
            pixels=None if self.pixels is None else self.pixels[mine],
            codes=self.codes[:, list(kept)],
            local=slice(first, last),
            pair_ids=[self.pair_ids[place] for place in kept],
        )

    def to(self, device: torch.device, preprocess: Preprocess) -> TrainingBatch:
        """On the device, where the pixels are normalised: they travel as bytes."""
        return replace(
            self,
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            keys=self.keys.to(device),
            features=None if self.features is None else ImageFeatures(*(x.to(device) for x in self.features)),
            pixels=None if self.pixels is None else preprocess.normalise(self.pixels.to(device)),
            codes=self.codes.to(device),
        )


def seed_of(*parts: object) -> str:
    return "/".join(str(part) for part in parts)


def generator(*parts: object) -> random.Random:
    """A generator seeded by its arguments alone (seed, epoch, id): the same on every process and machine."""
    return random.Random(seed_of(*parts))


def wanted(
    table: PairTable, order: Order, steps: range, *, seed: int, rank: int, world: int
) -> Iterator[list[Wanted]]:
    """Where the pictures of a process's share of each step lie, and what their augmentation is drawn from."""
    for step in steps:
        _, rows, times = order.step(step)
        local = share(len(rows), rank, world)
        names = table.ids.take(rows[local])
        yield [
            Wanted(table.locate(int(row)), seed_of(seed, time, name, "image"))
            for row, time, name in zip(rows[local], times[local], names, strict=True)
        ]


def fields_of(table: PairTable, rows: np.ndarray) -> list[list[list[str]]]:
    """Of each of these rows its fields (ZERO's title, content, image_query) that hold a text, each with its texts; of
    queries in one string, between commas, each is one. A table that was read without these columns has none."""
    names = [name for name in ZERO_FIELDS if name in table.frame.columns]
    found = table.frame.select(names)[rows].to_dict(as_series=False) if names else {}
    fields: list[list[list[str]]] = []
    for row in range(len(rows)):
        every = [_texts(name, column[row]) for name, column in found.items()]
        fields.append([texts for texts in every if texts])
    return fields


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        value = re.split("[,，]", value) if name == "image_query" else [value]
    return [text.strip() for text in value or () if isinstance(text, str) and text.strip()]


def draw_text(
    table: PairTable,
    row: int,
    config: PairsConfig,
    rng: random.Random,
    fields: Sequence[Sequence[str]] = (),
) -> str:
    """One text of a row, in one of the recipe's forms (FILIP §3.2: a candidate is drawn each time a pair is seen).

    A row without candidates, or without `fields`, gives one of its texts whatever the form.
    """
    text = rng.choice(table.texts[row])
    candidates = list(table.candidates[row])
    form = rng.choice(config.draw)
    if form == "field":
        return rng.choice(rng.choice(fields)) if fields else text
    if form == "text" or not candidates:
        return text
    if form == "candidate":
        return rng.choice([*table.texts[row], *candidates])
    rng.shuffle(candidates)
    return config.joiner.join(candidates if form == "candidates" else [text, *candidates])


def _codes(values: Sequence[str | None]) -> list[int]:
    """Equal values get equal non-negative integers, in any batch; None gets −1."""
    return [-1 if value is None else pair_key(value) for value in values]


class Loader:
    """Batches of `table` from any step on: `batches(start, stop)`.

    Text choice and augmentation are seeded by (seed, how often the pair came before, id), the order by (seed, epoch).
    Every process walks the global batch and takes its own rows. A pair whose image cannot be had is left out of the
    batch on all of them, and `bad` has it.
    """

    def __init__(
        self,
        table: PairTable,
        model: DualEncoder,
        config: PairsConfig,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        max_bad: str = "0",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        if config.batch_size % world:
            raise UsageError(f"data.batch_size {config.batch_size} is not a multiple of {world} processes")
        self.table, self.model, self.config, self.seed = table, model, config, seed
        self.grouped = isinstance(config, DataConfig) and bool(config.group)
        self.preprocess = model.preprocess
        self.rank, self.world = rank, world
        self.order = Order(len(table), config, seed=seed, shares=table.shares)
        self.steps_per_epoch = self.order.steps_per_epoch
        lost = sum(shard.pairs for shard in table.damaged)
        self.bad = BadPairs(max_bad, len(table) + lost, warn)
        self.bad.add_shards(table.damaged)
        self.store: FeatureStore | None = None
        self.store_rows: np.ndarray | None = None

    def read_features(self, store: FeatureStore, rows: np.ndarray, causes: Mapping[int, str]) -> None:
        """From now on no pixels: row i of the table is row `rows[i]` of the store, and −1 is a bad one, `causes[i]`."""
        self.store, self.store_rows, self.causes = store, rows, dict(causes)
        self.bad.add([(self.table.ids[row], cause) for row, cause in sorted(self.causes.items())])

    def batches(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        """Steps start … stop − 1, one prepared ahead in a thread (cached features) or in workers (pixels)."""
        if start >= stop:
            return
        pixels = self._pixels(start, stop) if self.store is None else None
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._prepare, start)
            for step in range(start, stop):
                batch = ahead.result()
                if step + 1 < stop:
                    ahead = pool.submit(self._prepare, step + 1)
                if pixels is None:
                    yield self._without(batch, self._not_in_store(step))
                    continue
                found = next(pixels)
                batch.pixels = found.pixels
                first = batch.local.start
                mine = {first + i: cause for i, cause in found.bad.items()}
                yield self._without(batch, self.bad.exchange(mine, self.model.device))

    def _prepare(self, step: int) -> TrainingBatch:
        _, rows, times = self.order.step(step)
        local = share(len(rows), self.rank, self.world)
        table = self.table
        ids = table.ids.take(rows)
        fields = fields_of(table, rows) if "field" in self.config.draw else [[]] * len(rows)
        texts = [
            draw_text(table, int(row), self.config, generator(self.seed, time, name, "text"), of_row)
            for row, time, name, of_row in zip(rows, times, ids, fields, strict=True)
        ]
        groups = table.groups.take(rows) if self.grouped else [None] * len(rows)
        codes = torch.tensor(
            [
                _codes(table.image_ids.take(rows)),
                _codes([unicodedata.normalize("NFC", text) for text in texts]),
                _codes(groups),
            ]
        )
        # A process without a share still has texts of some length, none of them.
        mine = len(texts[local])
        encoded = self.model.tokenizer.encode(
            texts[local] or texts[:1], length=self.model.config.text.context
        )
        token_ids, mask = (part[:mine] for part in encoded)
        features = None
        if self.store is not None and self.store_rows is not None:
            features = self.store.take(np.maximum(self.store_rows[rows[local]], 0))
        keys = torch.tensor(
            [pair_key(self.seed, time, name) for time, name in zip(times[local], ids[local], strict=True)],
            dtype=torch.int64,
        )
        return TrainingBatch(
            torch.from_numpy(token_ids), torch.from_numpy(mask), keys, features, None, codes, local, ids
        )

    def _not_in_store(self, step: int) -> dict[int, str]:
        """Place in the global batch → cause, of pairs that have no features; all processes know them all."""
        assert self.store_rows is not None
        rows = self.order.step(step).rows
        places = np.flatnonzero(self.store_rows[rows] < 0)
        return {int(place): self.causes[int(rows[place])] for place in places}

    def _without(self, batch: TrainingBatch, bad: dict[int, str]) -> TrainingBatch:
        """The batch without its bad pairs, which are told to `bad`."""
        if not bad:
            return batch
        self.bad.add([(batch.pair_ids[place], cause) for place, cause in sorted(bad.items())])
        kept = [place for place in range(len(batch.pair_ids)) if place not in bad]
        if not kept:
            fail(InputError(f"not one of the {len(bad)} images of a batch can be had"))
        return batch.only(kept)

    def _pixels(self, start: int, stop: int) -> Iterator[Pictures]:
        def plan() -> Iterator[list[Wanted]]:
            steps, whose = range(start, stop), {"seed": self.seed, "rank": self.rank, "world": self.world}
            return wanted(self.table, self.order, steps, **whose)

        augment = Augment(self.config.augment, self.preprocess, area=self.config.crop_area)
        return pictures(
            plan,
            augment,
            workers=self.config.workers,
            pin_memory=self.model.device.type == "cuda",
        )

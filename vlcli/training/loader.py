"""Global batches in an order that depends on the seed and the epoch alone, never on ranks or workers."""

from __future__ import annotations

import functools
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlcli.errors import UsageError
from vlcli.images.preprocess import Preprocess, augmentation
from vlcli.models.dropout import pair_key
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.recipes import DataConfig
from vlcli.shards.pairs import PairTable
from vlcli.shards.rows import ZERO_FIELDS
from vlcli.training.features import FeatureStore


@dataclass
class TrainingBatch:
    """One step's share of a process, and the identities of the whole global batch.

    `codes` (3, N): image, text and group of every pair of the global batch as integers, −1 for no group.
    """

    ids: Tensor  # (b, n) token ids
    mask: Tensor  # (b, n)
    keys: Tensor  # (b,) int64 of (seed, epoch, id): what dropout is drawn from
    features: ImageFeatures | None
    pixels: Tensor | None
    codes: Tensor
    local: slice  # my rows of the global batch
    pair_ids: list[str]  # of the global batch

    def to(self, device: torch.device) -> TrainingBatch:
        moved = None if self.features is None else ImageFeatures(*(x.to(device) for x in self.features))
        pixels = None if self.pixels is None else self.pixels.to(device)
        return TrainingBatch(
            self.ids.to(device),
            self.mask.to(device),
            self.keys.to(device),
            moved,
            pixels,
            self.codes.to(device),
            self.local,
            self.pair_ids,
        )


def generator(*parts: object) -> random.Random:
    """A generator seeded by its arguments alone (seed, epoch, id): the same on every process and machine."""
    return random.Random("/".join(str(part) for part in parts))


def fields_of(table: PairTable) -> list[list[list[str]]]:
    """Of each row its fields (ZERO's title, content, image_query) that hold a text, each with its texts; of queries
    in one string, between commas, each is one. A table that was read without these columns has none."""
    columns = {name: table.frame[name].to_list() for name in ZERO_FIELDS if name in table.frame.columns}
    rows: list[list[list[str]]] = []
    for row in range(len(table)):
        found = [_texts(name, column[row]) for name, column in columns.items()]
        rows.append([texts for texts in found if texts])
    return rows


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        value = re.split("[,，]", value) if name == "image_query" else [value]
    return [text.strip() for text in value or () if isinstance(text, str) and text.strip()]


def draw_text(
    table: PairTable,
    row: int,
    config: DataConfig,
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


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The permutation of an epoch (n,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def _codes(values: Sequence[str | None]) -> list[int]:
    """Equal values get equal non-negative integers, in any batch; None gets −1."""
    return [-1 if value is None else pair_key(value) for value in values]


class _Pictures(Dataset[Tensor]):
    """(epoch, row) → pixels; augmentation is seeded by (seed, epoch, id), so worker counts change nothing."""

    def __init__(self, table: PairTable, preprocess: Preprocess, config: DataConfig, seed: int) -> None:
        self.table, self.preprocess, self.config, self.seed = table, preprocess, config, seed
        self.augment = augmentation(config.augment, preprocess.size)

    def __getitem__(self, key: Any) -> Tensor:
        from vlcli.evaluation.embed import decode_row

        epoch, row = key
        picture = decode_row(self.table, row)
        if self.augment is None:
            return self.preprocess(picture)
        with torch.random.fork_rng(devices=[]):
            seed = generator(self.seed, epoch, self.table.ids[row], "image").getrandbits(63)
            torch.default_generator.manual_seed(seed)  # the CPU's alone: dropout on a GPU draws from another
            # A crop wants the larger picture; a policy works on the picture at the tower's size.
            if self.config.augment == "crop-flip":
                return self.preprocess.to_tensor(self.augment(picture))
            return self.preprocess.to_tensor(self.augment(self.preprocess.resize(picture)))


class Loader:
    """Batches of `table` from any step on: `batches(start, stop)`.

    Text choice and augmentation are seeded by (seed, epoch, id), the order by (seed, epoch); the last incomplete
    batch of an epoch is left out. Every process walks the global batch and takes its own rows.
    """

    def __init__(
        self,
        table: PairTable,
        model: DualEncoder,
        config: DataConfig,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(table) < config.batch_size:
            raise UsageError(
                f"{len(table)} pairs are fewer than one batch of {config.batch_size}",
                remedy="--set data.batch_size=N",
            )
        if config.batch_size % world:
            raise UsageError(f"data.batch_size {config.batch_size} is not a multiple of {world} processes")
        self.table, self.model, self.config, self.seed = table, model, config, seed
        self.store: FeatureStore | None = None
        self.store_rows: np.ndarray | None = None
        share = config.batch_size // world
        self.local = slice(rank * share, (rank + 1) * share)
        self.steps_per_epoch = len(table) // config.batch_size
        self.fields = fields_of(table) if "field" in config.draw else None

    def read_features(self, store: FeatureStore, rows: np.ndarray) -> None:
        """From now on no pixels: row i of the table is row `rows[i]` of the store."""
        self.store, self.store_rows = store, rows

    def rows_of(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, rows of the table) of the global batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        size = self.config.batch_size
        order = epoch_order(self.seed, epoch, len(self.table))
        return epoch, order[position * size : (position + 1) * size]

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
                if pixels is not None:
                    batch.pixels = next(pixels)
                yield batch

    def _prepare(self, step: int) -> TrainingBatch:
        epoch, rows = self.rows_of(step)
        table = self.table
        ids = [table.ids[row] for row in rows]
        texts = [
            draw_text(
                table,
                int(row),
                self.config,
                generator(self.seed, epoch, name, "text"),
                () if self.fields is None else self.fields[row],
            )
            for row, name in zip(rows, ids, strict=True)
        ]
        groups = [table.groups[row] if self.config.group else None for row in rows]
        codes = torch.tensor(
            [
                _codes([table.image_ids[row] for row in rows]),
                _codes([unicodedata.normalize("NFC", text) for text in texts]),
                _codes(groups),
            ]
        )
        token_ids, mask = self.model.tokenizer.encode(
            texts[self.local], length=self.model.config.text.context
        )
        features = None
        if self.store is not None and self.store_rows is not None:
            features = self.store.take(self.store_rows[rows[self.local]])
        keys = torch.tensor([pair_key(self.seed, epoch, name) for name in ids[self.local]])
        return TrainingBatch(
            torch.from_numpy(token_ids), torch.from_numpy(mask), keys, features, None, codes, self.local, ids
        )

    def _pixels(self, start: int, stop: int) -> Iterator[Tensor]:
        def plan() -> Iterator[list[tuple[int, int]]]:
            for step in range(start, stop):
                epoch, rows = self.rows_of(step)
                yield [(epoch, int(row)) for row in rows[self.local]]

        workers = self.config.workers
        return iter(
            DataLoader(
                _Pictures(self.table, self.model.preprocess, self.config, self.seed),
                batch_sampler=_Plan(plan),
                num_workers=workers,
                # its own, or each start would draw from the global one, and a resumed run would see other dropout
                generator=torch.Generator().manual_seed(self.seed),
                # polars' threads do not survive a fork
                multiprocessing_context="spawn" if workers else None,
                pin_memory=self.model.device.type == "cuda",
            )
        )


class _Plan:
    """A batch sampler from a generator function."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.plan()

"""Batches of parallel text: the same amount of each language, sources in their shares, texts of one length together."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import overload

import numpy as np
import torch
from torch import Tensor

from vlcli.curation.amount import apportion
from vlcli.errors import UsageError
from vlcli.models.dropout import pair_key
from vlcli.schemas.distillation import DistillConfig, TextDataConfig
from vlcli.training.parallel_table import ParallelTable
from vlcli.training.teacher import TeacherVectors


@dataclass
class TextBatch:
    """One step's share of a process: what the student reads, and what the teacher says of it in English."""

    ids: Tensor  # (b, n)
    mask: Tensor  # (b, n)
    target: Tensor  # (b, width)
    keys: Tensor  # (b,) int64: what dropout is drawn from
    table: ParallelTable
    rows: np.ndarray  # of the global batch

    @property
    def pair_ids(self) -> Sequence[str]:
        """Where the pairs of the global batch stand; looked up only where somebody asks."""
        return _Places(self.table, self.rows)

    def to(self, device: torch.device) -> TextBatch:
        moved = {name: getattr(self, name).to(device) for name in ("ids", "mask", "target", "keys")}
        return replace(self, **moved)


class _Places(Sequence[str]):
    def __init__(self, table: ParallelTable, rows: np.ndarray) -> None:
        self._table, self._rows = table, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self._table.places(self._rows[index].tolist())
        return self._table.places([int(self._rows[index])])[0]


def quotas(table: ParallelTable, config: DistillConfig) -> dict[int, int]:
    """Stratum of the table → its pairs in an epoch: of each language the same, in it the shares of its sources.

    UsageError where a language has none of the sources, or a source is nobody's.
    """
    sizes = np.bincount(table.strata, minlength=len(table.names)).tolist()
    known = {source for _, source in table.names}
    if unknown := [source for source in config.sources if source not in known]:
        raise UsageError(
            f"distill.sources: no row is of source {unknown[0]!r}; there are {', '.join(sorted(known))}",
            remedy="--set distill.sources={…}, {} for all in proportion",
        )
    amount = config.amount or max(1, len(table) // len(config.learnt))
    found: dict[int, int] = {}
    for language in config.learnt:
        shares: dict[int, Fraction] = {}
        for number, (lang, source) in enumerate(table.names):
            if lang == language and (not config.sources or source in config.sources):
                shares[number] = Fraction(config.sources.get(source, sizes[number]))
        if not shares:
            raise UsageError(f"distill.sources: none of them has a sentence in {language!r}")
        parts, _ = apportion(amount, list(shares.values()))
        found |= {number: part for number, part in zip(shares, parts, strict=True) if part}
    return found


class TextLoader:
    """Batches of a table from any step on: `batches(start, stop)`.

    The order depends on the seed and the epoch alone. Every process walks the global batch and takes each `world`-th
    row from its own on, so that all have texts of one length; the last incomplete batch of an epoch is left out.
    """

    def __init__(
        self,
        table: ParallelTable,
        vectors: TeacherVectors,
        distill: DistillConfig,
        data: TextDataConfig,
        *,
        padding: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        size = data.batch_size
        if size % world:
            raise UsageError(f"data.batch_size {size} is not a multiple of {world} processes")
        self.quotas = quotas(table, distill)
        self.pairs_per_epoch = sum(self.quotas.values())
        if self.pairs_per_epoch < size:
            raise UsageError(
                f"{self.pairs_per_epoch} pairs an epoch are fewer than one batch of {size}",
                remedy="--set data.batch_size=N",
            )
        self.table, self.vectors, self.data = table, vectors, data
        self.places = np.zeros(0, np.int64)
        self.padding, self.seed, self.rank, self.world = padding, seed, rank, world
        self.steps_per_epoch = self.pairs_per_epoch // size
        by_stratum = np.argsort(table.strata, kind="stable")
        ends = np.cumsum(np.bincount(table.strata, minlength=len(table.names)))
        self._members: Mapping[int, np.ndarray] = {
            number: by_stratum[(ends[number - 1] if number else 0) : ends[number]] for number in self.quotas
        }
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    def read_vectors(self, places: np.ndarray) -> None:
        """`places[i]` is the place of the table's English sentence i among the vectors."""
        self.places = places

    def rows_of(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, rows of the table) of the global batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        size = self.data.batch_size
        return epoch, self._order(epoch)[position * size : (position + 1) * size]

    def _make_order(self, epoch: int) -> np.ndarray:
        drawn = [_draw(self._members[s], n, epoch, (self.seed, s)) for s, n in sorted(self.quotas.items())]
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(np.concatenate(drawn))[: self.steps_per_epoch * self.data.batch_size]
        return _by_length(order, self.table.lengths, self.data, rng)

    def batches(self, start: int, stop: int) -> Iterator[TextBatch]:
        """Steps start … stop − 1, one prepared ahead in a thread."""
        if start >= stop:
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._prepare, start)
            for step in range(start, stop):
                batch = ahead.result()
                if step + 1 < stop:
                    ahead = pool.submit(self._prepare, step + 1)
                yield batch

    def _prepare(self, step: int) -> TextBatch:
        epoch, rows = self.rows_of(step)
        mine = rows[self.rank :: self.world]
        ids, mask = self.table.tokens(mine, self.padding)
        target = self.vectors.take(self.places[self.table.teachers[mine]])
        keys = torch.tensor([pair_key(self.seed, epoch, row) for row in mine.tolist()])
        arrays = torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(target)
        return TextBatch(*arrays, keys, self.table, rows)


def _draw(members: np.ndarray, count: int, epoch: int, seed: tuple[int, int]) -> np.ndarray:
    """The `count` members of an epoch: the next ones of an endless row of permutations, so that none comes again
    before all have come."""
    start, size = epoch * count, len(members)
    found = []
    while count:
        round_, place = divmod(start, size)
        taken = min(count, size - place)
        order = np.random.default_rng([*seed, round_, 1]).permutation(size)
        found.append(members[order[place : place + taken]])
        start, count = start + taken, count - taken
    return np.concatenate(found)


def _by_length(
    order: np.ndarray, lengths: np.ndarray, data: TextDataConfig, rng: np.random.Generator
) -> np.ndarray:
    """Cut windows of the order into batches of similar length, and shuffle these within their window."""
    size = data.batch_size
    if data.window == 1:
        return order
    found = []
    for window in np.split(order, range(size * data.window, len(order), size * data.window)):
        batches = window[np.argsort(lengths[window], kind="stable")].reshape(-1, size)
        found.append(rng.permutation(batches).ravel())
    return np.concatenate(found)

"""Which pairs each step sees: a function of the seed, the step and the data alone, never of ranks or workers.

A source is seen in passes, each a permutation of its own, so that no pair comes a second time before all came once,
however much or little of it an epoch takes. One source and no `epoch_pairs`: an epoch is a pass.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vlcli.errors import UsageError
from vlcli.shards.pair_table import Share

_MIXING, _MIXED = (
    3,
    4,
)  # keep the draws of a mixture apart from the order of one source (see also Objective._seats)


class Batching(Protocol):
    """What a recipe says of batches and epochs."""

    @property
    def batch_size(self) -> int: ...
    @property
    def epoch_pairs(self) -> int | None: ...
    def steps_per_epoch(self, pairs: int) -> int: ...


class Step(NamedTuple):
    """The global batch of a step. `times[i]`: how often row `rows[i]` came before, which every draw for it is seeded
    with; without mixtures and virtual epochs, the epoch."""

    epoch: int
    rows: np.ndarray  # (N,) int64
    times: np.ndarray  # (N,) int64


class Order:
    """The steps of a run over `pairs` rows, or over the `shares` of a mixture of them."""

    def __init__(self, pairs: int, config: Batching, *, seed: int, shares: Sequence[Share] = ()) -> None:
        self.seed, self.config = seed, config
        self.epoch_pairs = config.epoch_pairs or pairs
        self.shares = tuple(shares) or (Share("", 0, pairs, 1.0),)
        self.quotas = quotas([share.weight for share in self.shares], self.epoch_pairs)
        for share, quota in zip(self.shares, self.quotas, strict=True):
            if not quota or share.start == share.stop:
                raise UsageError(
                    f"an epoch of {self.epoch_pairs} pairs has none of {share.source or 'the data'}"
                )
        self.steps_per_epoch = config.steps_per_epoch(pairs)
        if not self.steps_per_epoch:
            raise UsageError(
                f"{self.epoch_pairs} pairs are fewer than one batch of {config.batch_size}",
                remedy="--set data.batch_size=N, or --set data.last=keep",
            )

    def step(self, step: int) -> Step:
        epoch, position = divmod(step, self.steps_per_epoch)
        rows, times = _epoch(self.seed, epoch, self.shares, self.quotas)
        part = slice(position * self.config.batch_size, (position + 1) * self.config.batch_size)
        return Step(epoch, rows[part].astype(np.int64), times[part].astype(np.int64))


def per_epoch(shares: Sequence[Share], config: Batching) -> list[tuple[str, int, float]]:
    """Of each source of a mixture: its name, how many pairs an epoch draws from it, and how often that shows each."""
    total = config.epoch_pairs or sum(share.stop - share.start for share in shares)
    counts = quotas([share.weight for share in shares], total) if shares else ()
    return [(s.source, n, n / (s.stop - s.start)) for s, n in zip(shares, counts, strict=True)]


@functools.lru_cache(maxsize=2)
def _epoch(
    seed: int, epoch: int, shares: tuple[Share, ...], quotas: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, times) of an epoch, each (epoch_pairs,), in the smallest type that holds them."""
    drawn = [
        _draws(seed, epoch, k if len(shares) > 1 else None, *s)
        for k, s in enumerate(zip(shares, quotas, strict=True))
    ]
    if len(drawn) == 1:
        return drawn[0]
    mixed = np.random.default_rng([seed, epoch, _MIXING]).permutation(sum(quotas))
    return np.concatenate([rows for rows, _ in drawn])[mixed], np.concatenate([times for _, times in drawn])[
        mixed
    ]


def _draws(
    seed: int, epoch: int, number: int | None, share: Share, quota: int
) -> tuple[np.ndarray, np.ndarray]:
    """What an epoch takes of one source: draws epoch · quota onward of the stream of its passes."""
    size = share.stop - share.start
    kind = np.uint32 if share.stop < 1 << 32 else np.int64
    first, last = epoch * quota, (epoch + 1) * quota
    rows, times = np.empty(quota, kind), np.empty(quota, np.uint32)
    for time in range(first // size, -(-last // size)):
        key = [seed, time] if number is None else [seed, time, _MIXED, number + 1]
        begin, end = max(first, time * size), min(last, (time + 1) * size)
        order = np.random.default_rng(key).permutation(size)[begin - time * size : end - time * size]
        rows[begin - first : end - first] = order + share.start
        times[begin - first : end - first] = time
    return rows, times


def quotas(weights: Sequence[float], total: int) -> tuple[int, ...]:
    """`total` in parts that are to each other as `weights` are; what rounding leaves goes to the largest rests."""
    exact = np.array(weights, np.float64) * (total / sum(weights))
    parts = np.floor(exact + 1e-9).astype(np.int64)
    for k in np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]:
        parts[k] += 1
    return tuple(int(part) for part in parts)


def share(pairs: int, rank: int, world: int) -> slice:
    """What a process computes of a global batch: as even as can be, in order, nothing twice and nothing left."""
    return slice(rank * pairs // world, (rank + 1) * pairs // world)

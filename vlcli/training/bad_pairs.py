"""Pairs whose image cannot be had: left out of their batches on all processes, named once, counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist

from vlcli.errors import InputError
from vlcli.records.bad import parse_max_bad
from vlcli.shards.pair_table import Damaged
from vlcli.training.processes import fail, mean, world_size


class BadPairs:
    """Counts different pairs, not how often they came: a share P% is one of all `pairs`.

    All processes have the same, because what one of them meets all are told (`exchange`).
    """

    def __init__(self, max_bad: str, pairs: int, warn: Callable[[str], None]) -> None:
        self.max_bad, self.warn = max_bad, warn
        self.seen: dict[str, str] = {}  # id → cause
        self.count = 0
        number, percent = parse_max_bad(max_bad)
        self.allowed = number if number is not None else math.floor((percent or 0.0) * pairs / 100 + 1e-9)

    def exchange(self, mine: Mapping[int, str], device: torch.device) -> dict[int, str]:
        """What all processes have met in a step, place in the global batch → cause. Every process calls it."""
        if world_size() == 1 or not mean(torch.tensor(float(len(mine)), device=device)):
            return dict(mine)
        found: list[Mapping[int, str]] = [{} for _ in range(world_size())]
        dist.all_gather_object(found, dict(mine))
        return {place: cause for one in found for place, cause in one.items()}

    def add(self, found: Sequence[tuple[str, str]]) -> None:
        """(id, cause) of bad pairs, the same on all processes. Raises InputError when they are too many."""
        for name, cause in found:
            if name not in self.seen:
                self.seen[name] = cause
                self._count(1, f"image of {name}: {cause}")

    def add_shards(self, damaged: Sequence[Damaged]) -> None:
        """Shards that were passed over, each with all its pairs."""
        for shard in damaged:
            self._count(shard.pairs, shard.cause)

    def _count(self, pairs: int, what: str) -> None:
        self.count += pairs
        counted = f"{self.count} bad; --max-bad is {self.max_bad}"
        if self.count > self.allowed:
            fail(InputError(what + (f" ({counted})" if self.allowed else "")))
        self.warn(f"{what}; left out ({counted})")

    def state_dict(self) -> dict[str, str]:
        return dict(self.seen)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Those that were told before count, and are not told again."""
        new = [name for name in state if name not in self.seen]
        self.seen.update(state)
        self.count += len(new)

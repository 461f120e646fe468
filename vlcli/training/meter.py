"""What a run says of itself between two log lines, and to whom."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class Reporter(Protocol):
    """What a command shows of a run. Called on the main process only."""

    def plan(self, plan: dict[str, Any]) -> None: ...
    def features(self, done: int, total: int) -> None: ...
    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...
    def validated(self, step: int, found: dict[str, Any], best: bool) -> None: ...
    def saved(self, path: Path) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass
class Meter:
    """Sums between two log lines. Its seconds are those of steps alone: a validation or a checkpoint between them is
    not training that was slow."""

    total: dict[str, float] = field(default_factory=dict)  # of what each step showed
    steps: int = 0
    carried: int = 0  # of these steps, those that a resumed run took before it was stopped
    waited: float = 0.0
    computed: float = 0.0

    @classmethod
    def resumed(cls, sums: dict[str, Any]) -> Meter:
        """As `sums` left it."""
        return cls(dict(sums["total"]), sums["steps"], carried=sums["steps"])

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, a step waits for its data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, a step is taken."""
        start = time.perf_counter()
        yield
        self.computed += time.perf_counter() - start

    def add(self, shown: Mapping[str, float]) -> None:
        """One step's numbers."""
        self.steps += 1
        for name, value in shown.items():
            self.total[name] = self.total.get(name, 0.0) + value

    def values(self, batch_size: int) -> dict[str, float]:
        """Means over the steps, and the rates: of pairs, of time that is waited (`data_wait`, a share), and the seconds
        that a step waits and computes."""
        seconds = max(self.waited + self.computed, 1e-9)
        timed = self.steps - self.carried
        return {
            **{name: value / max(self.steps, 1) for name, value in self.total.items()},
            "pairs_per_second": timed * batch_size / seconds,
            "data_wait": self.waited / seconds,
            "data_seconds": self.waited / max(timed, 1),
            "compute_seconds": self.computed / max(timed, 1),
        }

    def sums(self) -> dict[str, Any]:
        """What a checkpoint between two log lines must carry."""
        return {"total": self.total, "steps": self.steps}

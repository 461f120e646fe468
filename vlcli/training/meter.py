"""What a run says of itself between two log lines, and to whom."""

from __future__ import annotations

import time
from collections.abc import Mapping
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
    """Sums between two log lines."""

    total: dict[str, float] = field(default_factory=dict)  # of what each step showed
    steps: int = 0
    carried: int = 0  # of these steps, those that a resumed run took before it was stopped
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def resumed(cls, sums: dict[str, Any]) -> Meter:
        """As `sums` left it."""
        return cls(dict(sums["total"]), sums["steps"], carried=sums["steps"])

    def add(self, shown: Mapping[str, float]) -> None:
        """One step's numbers."""
        self.steps += 1
        for name, value in shown.items():
            self.total[name] = self.total.get(name, 0.0) + value

    def values(self, batch_size: int) -> dict[str, float]:
        """Means over the steps, and the rates."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        return {
            **{name: value / max(self.steps, 1) for name, value in self.total.items()},
            "pairs_per_second": (self.steps - self.carried) * batch_size / seconds,
            "data_wait": self.waited / seconds,
        }

    def sums(self) -> dict[str, Any]:
        """What a checkpoint between two log lines must carry."""
        return {"total": self.total, "steps": self.steps}

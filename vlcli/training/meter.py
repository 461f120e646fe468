"""What a run says of itself between two log lines, and to whom."""

from __future__ import annotations

import time
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

    loss: float = 0.0
    i2t: float = 0.0
    t2i: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    carried: int = 0  # of these steps, those that a resumed run took before it was stopped
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def values(self, batch_size: int) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.started, 1e-9)
        n = max(self.steps, 1)
        return {
            "loss": self.loss / n,
            "i2t_loss": self.i2t / n,
            "t2i_loss": self.t2i / n,
            "grad_norm": self.grad_norm / n,
            "pairs_per_second": (self.steps - self.carried) * batch_size / seconds,
            "data_wait": self.waited / seconds,
        }

    def sums(self) -> dict[str, Any]:
        """What a checkpoint between two log lines must carry."""
        return {name: getattr(self, name) for name in ("loss", "i2t", "t2i", "grad_norm", "steps")}

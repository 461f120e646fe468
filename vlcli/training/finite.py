"""A run stops at the first loss or gradient that is not finite, before the weights take it in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from vlcli.errors import VlcliError
from vlcli.training.processes import fail, on_main
from vlcli.training.run_directory import step_name


class NotFinite(VlcliError):
    """A loss or a gradient was not finite."""


def stop_unless_finite(value: torch.Tensor, pair_ids: Sequence[str], run: Path, step: int) -> None:
    """NotFinite naming the step, the ids of its global batch, all of them in a file, one a line, and the last good
    checkpoint. `value` must be the same on every process, for all of them to stop."""
    if torch.isfinite(value):
        return
    last = run / "last"
    good = os.path.realpath(last) if last.exists() else "none yet"
    listed = run / f"not-finite-{step_name(step)}.txt"
    on_main(lambda: listed.write_text("".join(f"{name}\n" for name in pair_ids), encoding="utf-8"))
    first = ", ".join(pair_ids[:8]) + (", …" if len(pair_ids) > 8 else "")
    fail(
        NotFinite(
            f"step {step}: loss or gradient is not finite; batch of {len(pair_ids)} ids {first}"
            f" (all in {listed}); last good checkpoint: {good}"
        )
    )

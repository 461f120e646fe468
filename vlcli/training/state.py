"""Checkpoints of a run: written whole or not at all, found again, pruned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.dual import DualEncoder
from vlcli.models.quickcheck import check_checkpoint

STATE = "training.pt"


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def save_state(
    run: Path,
    step: int,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    *,
    recipe: dict[str, Any],
    lineage: dict[str, Any],
    extra: dict[str, Any],
) -> Path:
    """Write checkpoints/step-N with weights and training state, then point `last` at it.

    The directory appears under its name when every file in it is on disk.
    """
    place = run / "checkpoints" / step_name(step)
    if place.is_dir():  # resumed at exactly this step: it is there already
        return place
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_checkpoint(model, temporary, recipe=recipe, lineage=lineage)
        state = {
            "step": step,
            "optimizer": optimizer.state_dict(),
            "rng": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
            **extra,
        }
        torch.save(state, temporary / STATE)
        for file in temporary.iterdir():
            _sync(file)
        os.replace(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(place.parent)
    point(run / "last", place)
    return place


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symlink to `target`, replacing an older one atomically."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints; never what `best` and `last` point at."""
    held = {(run / name).resolve() for name in ("best", "last")}
    steps = sorted((run / "checkpoints").glob("step-*"))
    for place in steps[:-keep]:
        if place.resolve() not in held:
            shutil.rmtree(place)


def newest_state(run: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint of a run and its training state; a damaged one is passed over with a warning.

    State is read with weights_only=True: no code in it is run.
    """
    for place in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            if findings := check_checkpoint(place).findings:
                raise InputError(findings[0].message, file=findings[0].file)
            return place, torch.load(place / STATE, map_location="cpu", weights_only=True)
        except Exception as error:
            warn(f"{place.name} is passed over: {' '.join(str(error).split())[:200]}")
    raise UsageError(f"{run}: no whole checkpoint to resume from")


def restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["rng"]["cpu"])
    if state["rng"]["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["rng"]["cuda"])

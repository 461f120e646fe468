"""A run's directory: its checkpoints by name, the links `last` and `best`, what is kept and what a stop left behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vlcli.errors import UsageError
from vlcli.models.config import Settings
from vlcli.recipes import to_toml

# What a run makes in its directory, as patterns; by the last one --resume knows a run that was stopped in its clearing.
OWN = (
    "best",
    "last",
    "checkpoints",
    "metrics.jsonl",
    "not-finite-step-*.txt",
    "tensorboard",
    "wandb",
    "curves.png",
    "recipe.toml",
)


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def refuse_occupied(run: Path, *, resume: bool, force: bool) -> None:
    """UsageError for a directory with something in it, unless it is to be replaced, or is a run to go on with."""
    if force or not run.exists():
        return
    if resume and ((run / "recipe.toml").is_file() or (run / "checkpoints").is_dir()):
        return
    if any(run.iterdir()):
        cause = "is not empty, and no run" if resume else "is not empty"
        remedy = "--force starts anew" if resume else "--resume goes on, --force starts anew"
        raise UsageError(f"{run} {cause}", remedy=remedy)


def belongings(run: Path) -> list[Path]:
    """What a run has in its directory, in the order of OWN; anybody else's files are not among it."""
    entries = sorted(run.iterdir()) if run.is_dir() else []  # glob would miss a link that leads nowhere
    return [path for pattern in OWN for path in entries if path.match(pattern)]


def clear(run: Path) -> None:
    """Delete a run, and leave what else is in its directory."""
    for path in belongings(run):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def begin(run: Path, recipe: Settings) -> None:
    """A directory for a run that starts: what an earlier one left is gone, the resolved recipe is there."""
    clear(run)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")


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
            remove(place)


def remove(place: Path) -> None:
    """Delete a checkpoint; killed half-way, what is left no longer bears a checkpoint's name."""
    hidden = place.with_name(f".{place.name}.{os.getpid()}.old")
    os.replace(place, hidden)
    shutil.rmtree(hidden)


def rewind(run: Path, place: Path, best_step: int | None) -> bool:
    """Make `run` what it was when the checkpoint `place` was written: no newer steps, no leavings of a killed
    process, `last` and `best` pointing where they did. False when the best checkpoint itself is gone."""
    for other in (run / "checkpoints").iterdir():
        if other.name.startswith(".step-"):
            shutil.rmtree(other)
        elif other.name.startswith("step-") and other.name > place.name:
            remove(other)
    point(run / "last", place)
    best = None if best_step is None else place.with_name(step_name(best_step))
    if best is None or not best.is_dir():
        (run / "best").unlink(missing_ok=True)
        return best is None
    point(run / "best", best)
    return True

"""Everything that `finetune --task classify` trains: a search where the recipe has one, and a run for each seed."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlcli.errors import UsageError
from vlcli.evaluation.class_metrics import PLACES
from vlcli.models.dual import DualEncoder
from vlcli.schemas.classification import ClassifyRecipe
from vlcli.training.class_loader import ClassTable
from vlcli.training.class_stages import PROBE, run_stages, try_resolutions
from vlcli.training.class_trials import RUNS, TRIALS, Trial, search
from vlcli.training.classification import fingerprint
from vlcli.training.meter import Reporter
from vlcli.training.run_directory import clear, refuse_occupied

SUMMARY = "runs.json"


class Trained(NamedTuple):
    """A run that came to its end. `result`: what `run_stages` returns."""

    seed: int
    place: Path
    result: dict[str, Any]


def refuse_occupied_by_others(out: Path, *, resume: bool, force: bool) -> None:
    """As `run_directory.refuse_occupied`, of a directory in which there may be trials or several runs."""
    if not (resume and any(path.exists() for path in _own(out))):
        refuse_occupied(out, resume=resume, force=force)


def _own(out: Path) -> list[Path]:
    """What stands beside a run, or in place of it."""
    return [out / PROBE, out / TRIALS, out / RUNS, out / SUMMARY, *sorted(out.glob("seed-*"))]


def clear_all(out: Path) -> None:
    """Delete runs and trials, and leave what else is in the directory."""
    clear(out)
    for path in _own(out):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def places(out: Path, seed: int, runs: int) -> dict[int, Path]:
    """Seed → the directory of its run: `out` itself where there is one."""
    if runs == 1:
        return {seed: out}
    return {number: out / f"seed-{number}" for number in range(seed, seed + runs)}


def train_all(
    source: DualEncoder,
    labels: tuple[str, ...],
    recipe: ClassifyRecipe,
    train: ClassTable,
    out: Path,
    reporter: Reporter,
    *,
    validation: ClassTable | None = None,
    runs: int = 1,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    before: Callable[[dict[str, Any]], None] = lambda found: None,
    of_trials: Reporter | None = None,
    tried: Callable[[Trial, int], None] = lambda trial, count: None,
) -> list[Trained]:
    """Search, then train with the seeds of `runs` runs. With a search the runs learn from both tables, by what was
    chosen on `validation`; without, `validation` chooses the best step of each."""
    try_resolutions(recipe, source.image.body, source.config.image.preprocess)
    refuse_occupied_by_others(out, resume=resume, force=force)
    if force and os.environ.get("RANK", "0") == "0":  # the processes of a launcher have not met yet
        clear_all(out)
    if recipe.trials is not None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError(
                "a search goes through its trials on one process", remedy="start it without a launcher"
            )
        assert validation is not None, "a search chooses by something"
        held = validation

        def run(one: ClassifyRecipe, place: Path) -> float:
            quiet = one.train.model_copy(update={"evaluate_every": 0, "save_every": 0})
            one = one.model_copy(update={"train": quiet})
            told = of_trials or reporter
            found = run_stages(
                source, labels, one, train, place, told, validation=held, device=device, resume=True
            )
            return float(found["best"])

        on = {"train": fingerprint(train, labels), "val": fingerprint(held, labels), "n": len(held)}
        recipe = search(recipe, out, run, tried, on=on)
        train, validation = train.and_(held), None
    done = []
    for seed, place in places(out, recipe.train.seed, runs).items():
        own = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
        result = run_stages(
            source,
            labels,
            own,
            train,
            place,
            reporter,
            validation=validation,
            device=device,
            resume=resume,
            before=before,
        )
        done.append(Trained(seed, place, result))
    return done


def summary(results: Mapping[int, Mapping[str, Any]], on: str) -> dict[str, Any]:
    """Of the numbers of each seed's run: all, their means and their standard deviations (of a sample: n − 1)."""
    names = [name for name in PLACES if all(name in one for one in results.values())]
    each = {name: [float(one[name]) for one in results.values()] for name in names}
    spread: Callable[[Sequence[float]], float] = lambda x: statistics.stdev(x) if len(x) > 1 else 0.0  # noqa: E731
    return {
        "on": on,
        "runs": [{"seed": seed, **{name: one[name] for name in names}} for seed, one in results.items()],
        "mean": {name: statistics.fmean(values) for name, values in each.items()},
        "sd": {name: spread(values) for name, values in each.items()},
    }

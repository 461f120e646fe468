"""A search over a recipe's keys before a classifier is trained (VTAB: 800 rows to learn by, 200 to choose by, all)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.recipes import with_settings
from vlcli.records.atomic import atomic_file
from vlcli.schemas.classification import ClassifyRecipe
from vlcli.training.finite import NotFinite

TRIALS = "trials.jsonl"  # beside the run that the best of them led to
RUNS = "trials"  # where the one that is being run lies

Settings = dict[str, Any]  # key of the recipe → value
Trial = dict[str, Any]  # a line of trials.jsonl


def drawn(recipe: ClassifyRecipe) -> list[Settings]:
    """The points of the grid that are tried: all, or `count` of them drawn by the recipe's seed; none of a recipe that
    does not search."""
    if recipe.trials is None:
        return []
    grid, count = recipe.trials.grid, recipe.trials.count
    total = 1
    for values in grid.values():
        total *= len(values)
    chosen = random.Random(recipe.train.seed).sample(range(total), min(count, total))
    return [_point(grid, number) for number in chosen]


def _point(grid: Mapping[str, Sequence[Any]], number: int) -> Settings:
    """Point `number` of the product of the grid's values, the last key's going round first."""
    point = {}
    for key, values in reversed(list(grid.items())):
        number, place = divmod(number, len(values))
        point[key] = values[place]
    return {key: point[key] for key in grid}


def applied(recipe: ClassifyRecipe, settings: Settings) -> ClassifyRecipe:
    """The recipe of one trial, which searches no more. UsageError for a key or a value that cannot be."""
    return with_settings(recipe.model_copy(update={"trials": None}), settings)


def best_of(trials: Sequence[Trial], name: str) -> Trial:
    """The trial of the highest number on the validation rows; of equal ones that which was drawn first."""
    done = [trial for trial in trials if trial[name] is not None]
    if not done:
        raise VlcliError(f"not one of {len(trials)} trials came to its end: {trials[0]['failed']}")
    return max(done, key=lambda trial: (trial[name], -trial["trial"]))


def search(
    recipe: ClassifyRecipe,
    out: Path,
    run: Callable[[ClassifyRecipe, Path], float],
    told: Callable[[Trial, int], None],
    *,
    on: Mapping[str, Any],
) -> ClassifyRecipe:
    """Run all trials; returns the recipe of the best. `out`/trials.jsonl has a line for each, the best marked "chosen".

    `run(recipe, place)` trains into a directory, or goes on there, and returns what its last step scores on the
    validation rows. What stands in trials.jsonl is not run again. A trial that diverges has failed. Every line says
    what is in `on`: those of other rows or another recipe are refused.
    """
    points = drawn(recipe)
    recipes = [applied(recipe, point) for point in points]
    name = recipe.train.best
    trials: list[Trial] = []
    earlier = {orjson.dumps(line["settings"]): line for line in read_trials(out / TRIALS, on)}
    for number, (point, own) in enumerate(zip(points, recipes, strict=True)):
        line = earlier.get(orjson.dumps(point))
        if line is None:
            line = {"settings": point, **_outcome(own, out / RUNS / f"{number:02}", run, name), **on}
            shutil.rmtree(out / RUNS, ignore_errors=True)
        trials.append({**line, "trial": number, "chosen": False})
        _write(out / TRIALS, trials)
        told(trials[-1], len(points))
    best = best_of(trials, name)
    best["chosen"] = True
    _write(out / TRIALS, trials)
    return recipes[best["trial"]]


def _outcome(
    recipe: ClassifyRecipe, place: Path, run: Callable[[ClassifyRecipe, Path], float], name: str
) -> dict[str, Any]:
    try:
        return {name: run(recipe, place)}
    except NotFinite as error:
        return {name: None, "failed": str(error).partition(";")[0]}


def _write(file: Path, trials: Sequence[Trial]) -> None:
    with atomic_file(file, force=True) as whole:
        whole.write(b"".join(orjson.dumps(trial) + b"\n" for trial in trials))


def read_trials(file: Path, on: Mapping[str, Any]) -> Iterator[Trial]:
    """The lines of a search that was stopped. InputError for another thing, UsageError for one on other rows."""
    if not file.is_file():
        return
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            trial = orjson.loads(line)
            said = {key: trial[key] for key in on}
            assert isinstance(trial["settings"], dict)
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise InputError("not a trial", file=str(file), line=number) from error
        if said != on:
            raise UsageError(
                f"--resume: {file} is of other rows or another recipe", remedy="--force starts anew"
            )
        yield trial

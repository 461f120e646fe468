"""`finetune --task classify`: the head of a classifier, then all its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.commands._finetune_classes import Rows
from vlcli.commands._training import Progress, curves, fate, speaks
from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.schemas.classification import ClassifyRecipe

RECIPE = "align-fine-grained"


class ClassifyProgress(Progress):
    """A classifier's run on stderr."""

    def plan(self, plan: dict[str, Any]) -> None:
        stage = "the head alone"
        if plan["stage"] == "all":
            stage = f"all layers, the tower at {plan['rate']:g} × the head's rate"
        self.about(
            plan,
            f"{stage}, {plan['rows']} rows, {plan['classes']} classes, pictures of {plan['size']} pixels"
            f" ({plan['eval_size']} in evaluation)",
        )

    def features(self, done: int, total: int) -> None:
        raise AssertionError("nothing is cached")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        line = (
            f"loss {values['loss']:.3f} top-1 {values['train_top1']:.0f}% lr {values['lr']:.1e}"
            f" {values['pairs_per_second']:.0f} pictures/s wait {100 * values['data_wait']:.0f}%"
        )
        self._advance("training", step, total, line)

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        self.console.note(f"step {step}: {numbers(found)} of {found['n']}{'  (best so far)' if best else ''}")


class TrialProgress(ClassifyProgress):
    """One of many runs: the search says what it came to."""

    def plan(self, plan: dict[str, Any]) -> None:
        pass

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        pass


def numbers(found: Mapping[str, Any]) -> str:
    return (
        f"top-1/5 {found['top1']:.1f}/{found['top5']:.1f}, mean per class {found['mean_per_class']:.1f} (val)"
    )


def classify(
    checkpoint: str,
    rows: Rows,
    recipe_name: str | None,
    settings: list[str],
    output: Path | None,
    console: Console,
    *,
    runs: int,
    device: str,
    resume: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Train, say what chose what, and measure the result on --test, once."""
    from vlcli.recipes import load_classify_recipe, to_toml
    from vlcli.training.class_runs import refuse_occupied_by_others

    recipe = load_classify_recipe(recipe_name or RECIPE, settings)
    if force and resume:
        raise UsageError("--force and --resume exclude each other")
    if recipe.trials is not None and not rows.val:
        raise UsageError("nothing chooses among trials", remedy="name rows with --val")
    out = output or Path("runs") / recipe.name
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: not a directory")
    if speaks() and not dry_run:
        refuse_occupied_by_others(out, resume=resume, force=force)
    tables = rows.tables()
    labels, data = _classes(tables, rows.column, recipe, console)
    if dry_run:
        named = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
        stages = (
            f"{len(recipe.stages)} × {recipe.steps(len(data['train']))} steps of {recipe.data.batch_size}"
        )
        print(
            f"# {named} rows, {len(labels)} classes, {stages}; {fate(out, resume=resume, force=force)}\n"
            + to_toml(recipe),
            end="",
        )
        return
    _train(checkpoint, labels, recipe, data, tables, out, console, runs, device, resume, force, rows.column)


def _classes(
    tables: dict[str, Any], column: str, recipe: ClassifyRecipe, console: Console
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The classes, and the tables with theirs. What was searched for by few rows is measured on all classes: those of
    which the rows show none are there to be got wrong."""
    from vlcli.evaluation.classifier import classes_of
    from vlcli.training.class_loader import ClassTable

    known = ("train",) if recipe.trials is None else tuple(tables)
    names, truths = classes_of(tables, column, known)
    unseen = len(names) - len(set(truths["train"].labels.tolist()))
    if unseen:
        console.warn(f"{unseen} of {len(names)} classes are in no training row")
    data = {name: ClassTable(tables[name], truth.labels) for name, truth in truths.items()}
    return tuple(str(name) for name in names.names), data


def _train(
    checkpoint: str,
    labels: tuple[str, ...],
    recipe: ClassifyRecipe,
    data: dict[str, Any],
    tables: dict[str, Any],
    out: Path,
    console: Console,
    runs: int,
    device: str,
    resume: bool,
    force: bool,
    column: str,
) -> None:
    import vlcli
    from vlcli.models.quickcheck import kind_of
    from vlcli.training.class_runs import train_all

    if (kind := kind_of(checkpoint)) not in ("dual", "r2d2"):
        raise UsageError(f"{checkpoint}: a checkpoint of kind {kind!r} has no tower for this")
    source = vlcli.load(checkpoint)
    val = tables["val"].source if "val" in tables else None
    what = "step" if recipe.trials is None else "trial"
    console.note(
        f"{val} (val, {len(data['val'])} rows) chooses the {what}; no row of a test is looked at before the end"
        if val is not None
        else "no --val: nothing is chosen, the last step is the result"
    )

    def tried(trial: dict[str, Any], count: int) -> None:
        said = ", ".join(f"{key} {value}" for key, value in trial["settings"].items())
        found = trial[recipe.train.best]
        result = f"{recipe.train.best} {found:.1f} (val)" if found is not None else trial["failed"]
        console.note(f"trial {trial['trial'] + 1} of {count}: {said}: {result}")

    with ClassifyProgress(console) as reporter, TrialProgress(console) as of_trials, curves(out, console):
        done = train_all(
            source,
            labels,
            recipe,
            data["train"],
            out,
            reporter,
            validation=data.get("val"),
            runs=runs,
            device=device,
            resume=resume,
            force=force,
            before=lambda found: console.note(
                f"the probed head, before step 1 of all layers: {numbers(found)}"
            ),
            of_trials=of_trials,
            tried=tried,
        )
    if not speaks():
        return
    for run in done:
        _told(run, recipe.train.best, console)
    _measure(done, tables, column, recipe, device, out, console)


def _told(run: Any, name: str, console: Console) -> None:
    best, probe = run.result["best"], run.result["probe"]
    console.note(
        f"{run.result['steps']} steps"
        + (f", best {name} {best:.1f} (val)" if best is not None else "")
        + f"; {run.place}"
    )
    if best is not None and probe is not None and probe > best:
        console.warn(f"the probed head was better on val, {name} {probe:.1f}: it is in {run.place / 'probe'}")


def _measure(
    done: Sequence[Any],
    tables: Mapping[str, Any],
    column: str,
    recipe: ClassifyRecipe,
    device: str,
    out: Path,
    console: Console,
) -> None:
    """The table of --test for every run, and of several their mean and deviation, which runs.json has too."""
    from vlcli.commands import _evaluation as e
    from vlcli.commands._console import show_table
    from vlcli.commands._zeroshot_show import PLACES, show
    from vlcli.evaluation.classifier import classify_images
    from vlcli.models.checkpoint import load_classifier, resolve_device
    from vlcli.records.atomic import write_json
    from vlcli.training.class_runs import SUMMARY, summary

    place = resolve_device(device)
    precision = "fp32" if recipe.train.precision == "auto" else recipe.train.precision
    results: dict[int, dict[str, Any]] = {}
    for run in done:
        if "test" in tables:
            with e.announcing(console) as announce:
                how: dict[str, Any] = {"column": column, "precision": precision, "announce": announce}
                results[run.seed] = classify_images(
                    load_classifier(run.place, str(place)), tables["test"], **how
                )
            show(results[run.seed])
        elif run.result["best"] is not None:
            results[run.seed] = {recipe.train.best: run.result["best"]}
    if len(done) < 2 or not results:
        return
    on = "test" if "test" in tables else "val"
    found = summary(results, on)
    write_json(out / SUMMARY, {"recipe": recipe.name, "data": tables[on].source, **found}, force=True)
    chosen = "" if on == "test" else ", the rows that chose the step"
    lines = [[PLACES[name], f"{found['mean'][name]:.2f} ± {found['sd'][name]:.2f}"] for name in found["mean"]]
    title = f"{tables[on].source} ({on}{chosen}) · {recipe.name} · seeds {', '.join(map(str, results))}"
    show_table(title, ["", f"mean ± sd of {len(results)} runs"], lines)

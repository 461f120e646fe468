"""`zeroshot --task matching|simlex|compositional`: what is asked instead of the class of an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.commands._results import Lines

SCORES = {"text": "text score", "image": "image score", "group": "group score"}


def match(
    model: Any,
    table: Any,
    settings: Callable[..., dict[str, Any]],
    how: dict[str, Any],
    lines: Lines,
    console: Console,
    *,
    predictions: Path | None,
    force: bool,
) -> dict[str, Any]:
    """The AUC of telling whether text and image of a row belong together."""
    from vlcli.evaluation.matching import matching

    def compute() -> dict[str, Any]:
        with e.announcing(console) as announce:
            return matching(model, table, predictions=predictions, force=force, announce=announce, **how)

    asked = settings(model, column=how["column"], lang=how["lang"], task="matching")
    return lines.once(asked, compute, anew=predictions is not None)


def show_matching(result: dict[str, Any]) -> None:
    """What `match` found."""
    from vlcli.commands._console import show_table

    count = f"{result['n']} pairs" + ("" if result["auc"] is None else f", {result['positives']} match")
    show_table(e.title(result), ["", count], [["AUC", e.cell(result["auc"], result["ci95"].get("auc"))]])


def simlex(
    run: str,
    data: list[str],
    how: dict[str, Any],
    *,
    device: str,
    json: bool,
    console: Console,
    lines: Lines,
) -> None:
    """Spearman's correlation of the similarities of words with what people say."""
    from vlcli.commands._console import show_table
    from vlcli.errors import UsageError

    if len(data) != 1:
        raise UsageError("--task simlex reads one file of word pairs")
    from vlcli.evaluation.simlex import read_pairs
    from vlcli.evaluation.simlex import simlex as measure

    pairs = read_pairs(data[0])
    model = e.open_model(run, device, console)
    result = lines.once(_settings(model, pairs, "simlex", how), lambda: measure(model, pairs, **how))
    if json:
        e.print_json(result)
        return
    rows = [
        [name, str(result["pairs"][name]), e.cell(value, result["ci95"].get(name))]
        for name, value in result["spearman"].items()
    ]
    title = f"{e.title(result)} · {result['features']}-projection"
    show_table(title, ["subset", "pairs", "Spearman × 100"], rows)


def compositional(
    run: str,
    data: list[str],
    dataset: str | None,
    image_root: Path | None,
    how: dict[str, Any],
    *,
    device: str,
    json: bool,
    console: Console,
    lines: Lines,
) -> None:
    """Text, image and group score on pairs of captions that differ in little."""
    from vlcli.errors import UsageError
    from vlcli.evaluation.compositional_sets import SETS, read_cases

    if dataset is None or dataset not in SETS:
        raise UsageError(f"--task compositional reads the files of a set: --dataset {', '.join(SETS)}")
    from vlcli.evaluation.compositional import compositional as measure

    cases = read_cases(dataset, data, image_root)
    model = e.open_model(run, device, console)
    with e.announcing(console) as announce:
        result = lines.once(
            _settings(model, cases, f"compositional {dataset}", {**how, "pictures": lines.pictures(cases)}),
            lambda: measure(model, cases, announce=announce, **how),
        )
    if json:
        e.print_json(result)
    else:
        _show(result)


def _settings(model: Any, data: Any, task: str, how: dict[str, Any]) -> dict[str, Any]:
    """All that a number depends on."""
    from vlcli.evaluation.results_file import settings_of

    asked = {name: value for name, value in how.items() if name != "batch_size"}
    return settings_of(model, data, command="zeroshot", task=task, **asked)


def _show(result: dict[str, Any]) -> None:
    from vlcli.commands._console import show_table

    scores = {key: shown for key, shown in SCORES.items() if key in result}
    header = [result["dataset"], "cases", *scores.values(), "same words"]
    rows = [
        [name, str(one["n"]), *(e.cell(one[key], None) for key in scores), str(one["same_words"])]
        for name, one in result["categories"].items()
    ]
    bag, chance = result["bag_of_words"], result["chance"]
    whole = [e.cell(result[key], result["ci95"].get(key)) for key in scores]
    rows.append(["all", str(result["n"]), *whole, str(bag["same"])])
    rows.append(["mean of categories", "", e.cell(result["macro"], None), *([""] * (len(scores) - 1)), ""])
    rows.append(["best of a bag of words", "", e.cell(bag["ceiling"], None), *([""] * (len(scores) - 1)), ""])
    rows.append(["chance", "", *(e.cell(chance[key], None) for key in scores), ""])
    show_table(e.title(result), header, rows)

"""vlcli zeroshot: classification by the names of the classes, and whether texts match."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vlcli.commands import _dataset as sets
from vlcli.commands import _evaluation as e
from vlcli.commands import _languages as many
from vlcli.commands import _options as o
from vlcli.commands import _results as r

EXAMPLES = (
    "vlcli zeroshot runs/lit-filip --data imagenet.jsonl --labels labels.zh.txt --prompts wukong-80",
    "vlcli zeroshot runs/lit-filip --data val.jsonl --label-column group_zh --labels groups.txt --json",
    "vlcli zeroshot runs/lit-filip --data val.jsonl --label-column name",
    "vlcli zeroshot runs/altclip-m9 --data imagenet.jsonl --labels 'labels.{lang}.txt' --langs en,zh,ar,ja",
    "vlcli zeroshot runs/r2d2 --data icm.val.jsonl --task matching",
    "vlcli zeroshot runs/r2d2 --task matching --dataset icm --data ICM/ --image-root IQR_IQM_ICR_ICM_images/",
)
PROMPTS = "wukong-80"
MANUAL = {"ENVIRONMENT": (e.CACHE_VARIABLE,)}
NUMBERS = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}


class Task(StrEnum):
    """What is asked of a model that was trained for neither."""

    classify = "classify"
    matching = "matching"


class Ensemble(StrEnum):
    """How scores of several templates become one."""

    similarity = "similarity"
    probability = "probability"


def command(
    run: e.Run,
    data: o.Data,
    dataset: sets.Dataset = None,
    task: Annotated[
        Task,
        Option(
            "--task",
            help="Name the class of each image, or tell whether its text fits it: the AUC of an R2D2's match "
            "probability, with 1 or 0 in the label column.",
        ),
    ] = Task.classify,
    labels: Annotated[
        str | None,
        Option(
            "--labels",
            metavar="FILE",
            help="A name per line (line k, from 0, for label k) or key<TAB>name.",
            show_default="the column's own values",
        ),
    ] = None,
    label_column: Annotated[
        str, Option("--label-column", metavar="NAME", help="The column that holds the class.")
    ] = "label",
    prompts: Annotated[str | None, e.prompts_option("wukong-80, with --langs parallel-20.{lang}")] = None,
    ensemble: Annotated[
        Ensemble,
        Option(
            "--ensemble",
            help="Average over templates: text vectors or token-wise similarities (the papers), or "
            "probabilities over the classes (Wukong's released evaluation).",
        ),
    ] = Ensemble.similarity,
    predictions: Annotated[
        Path | None,
        Option(
            "--predictions",
            metavar="OUT.jsonl",
            help="The match probability of every row, which may be without labels (--task matching).",
        ),
    ] = None,
    split: e.Split = None,
    lang: e.Lang = None,
    langs: many.Langs = None,
    bootstrap: e.Bootstrap = 1000,
    seed: o.Seed = 0,
    renames: o.Map = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    cache: e.Cache = "auto",
    results: r.Results = None,
    compare: r.Compare = None,
    json: o.Json = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Top-1, top-5 and mean-per-class accuracy of naming images, or the AUC of matching, with 95 % bootstrap intervals.

    A class is its name in every template. A global model averages the text vectors; a token-wise model
    averages the image→text similarities, for tokens have no mean. Classes that share a name are reported:
    no score tells them apart, and the first one wins.

    With --langs the classes are named in each language: by --labels 'labels.{lang}.txt' from a file each, or
    by --label-column 'name_{lang}' from the data. The interval of the average draws an image for all languages
    at once.
    """
    from vlcli.commands._console import Console, show_table
    from vlcli.errors import UsageError

    if predictions is not None and task is not Task.matching:
        raise UsageError("--predictions is of --task matching")
    if labels is not None and task is Task.matching:
        raise UsageError("--labels names classes: --task matching has none")
    if langs is not None and task is Task.matching:
        raise UsageError("--langs names classes in several languages: --task matching has none")
    if dataset is not None and task is not Task.matching:
        raise UsageError("--dataset is of --task matching: icm, iqm")
    if dataset is not None and label_column != "label":
        raise UsageError("--label-column names a column: a --dataset has its own labels")
    if compare is not None:
        r.refuse_with_compare({"--langs": langs, "--task matching": task is Task.matching})
        e.require_run(compare)
    e.require_run(run)
    from vlcli.evaluation.names_by_language import name_classes, require_columns
    from vlcli.records.atomic import refuse_existing
    from vlcli.shards.pairs import load_pairs
    from vlcli.text.labels import load_labels
    from vlcli.text.languages import varies
    from vlcli.text.prompts import PARALLEL, load_prompts

    console = Console("zeroshot", quiet=quiet, verbose=verbose)
    if langs is None:
        templates = load_prompts(prompts or PROMPTS)
        names = load_labels(labels) if labels else None
        namings = {}
    else:
        tags = many.parse(langs, lang)
        namings = name_classes(tags, labels=labels, column=label_column, prompts=prompts or PARALLEL)
    swept = bool(namings) and varies(label_column)
    columns = [naming.column for naming in namings.values()] if swept else [label_column]
    needed = () if swept or predictions is not None else columns
    if predictions is not None and not force:
        refuse_existing(predictions)
    if dataset is not None:
        reading = sets.read(
            dataset, data, split=split, task="matching", image_root=image_root, renames=renames
        )
        table = sets.load(reading, console, head=head, columns=("label",))
        split = None  # the rows say it
    else:
        table = load_pairs(
            data,
            renames=o.parse_map(renames),
            columns=needed,
            optional=[name for name in dict.fromkeys(("split", "lang", *columns)) if name not in needed],
            image_root=image_root,
            head=head,
            need_text=task is Task.matching,
        )
    require_columns(table, namings)

    from vlcli.evaluation.results_file import settings_of
    from vlcli.evaluation.sweep import classify_in
    from vlcli.evaluation.tasks import classify

    lines = r.Lines(results, run, console, force=force)
    model = e.open_model(run, device, console)
    how: dict[str, Any] = {
        "ensemble": ensemble.value,
        "bootstrap": bootstrap,
        "seed": seed,
        "split": split,
        "batch_size": batch_size,
        "precision": precision,
    }
    settings = functools.partial(settings_of, table=table, command="zeroshot", bootstrap=bootstrap, seed=seed)
    settings = functools.partial(settings, split=split, precision=precision)
    if task is Task.matching:
        from vlcli.evaluation.matching import matching

        with e.announcing(console) as announce:
            found = lines.once(
                settings(model, column=label_column, lang=lang, task="matching"),
                lambda: matching(
                    model,
                    table,
                    column=label_column,
                    predictions=predictions,
                    force=force,
                    bootstrap=bootstrap,
                    seed=seed,
                    split=split,
                    lang=lang,
                    batch_size=batch_size,
                    precision=precision,
                    announce=announce,
                ),
                anew=predictions is not None,
            )
        if json:
            e.print_json(found)
        else:
            count = f"{found['n']} pairs" + ("" if found["auc"] is None else f", {found['positives']} match")
            show_table(e.title(found), ["", count], [["AUC", e.cell(found["auc"], found["ci95"].get("auc"))]])
        return

    def measure(model: Any, lines: r.Lines, told: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Of one checkpoint; `told` asks for what the numbers count."""
        with e.announcing(console) as announce, e.caching(cache, model, precision, console) as how["cache"]:
            if namings:
                return lines.sweep(
                    {
                        tag: settings(
                            model,
                            prompts=by.prompts,
                            labels=by.labels,
                            column=by.column,
                            lang=tag,
                            ensemble=how["ensemble"],
                        )
                        for tag, by in namings.items()
                    },
                    lambda: classify_in(model, table, namings, announce=announce, **how),
                )
            return lines.once(
                settings(
                    model,
                    prompts=templates,
                    labels=names,
                    column=label_column,
                    lang=lang,
                    ensemble=how["ensemble"],
                ),
                lambda: classify(
                    model,
                    table,
                    templates,
                    column=label_column,
                    labels=names,
                    lang=lang,
                    announce=announce,
                    told=told or (lambda places: None),
                    **how,
                ),
                anew=told is not None,
            )

    if compare is not None:
        from vlcli.evaluation.comparison import compare_accuracies, require_comparable

        places: list[Any] = []
        both = [measure(model, lines, places.append)]
        model = e.open_model(compare, device, console)
        require_comparable(both[0], model.checkpoint_hash)
        both.append(measure(model, lines.of(compare), places.append))
        difference = compare_accuracies(*places, bootstrap=bootstrap, seed=seed)
        if json:
            e.print_json({"results": both, "difference": difference})
        else:
            r.show_comparison(both, difference, [run, compare], NUMBERS)
        return
    result = measure(model, lines)
    for one in result["langs"] if namings else [result]:
        if one["duplicate_names"]:
            same = "、".join(one["duplicate_names"][:5])
            where = f"{one['lang']}: " if namings else ""
            console.warn(f"{where}several classes are called {same}: top-1 cannot reach 100")
    if namings and result["encoded"]["images"]:
        many.note_saving(result, console)
    if json:
        e.print_json(result)
    elif namings:
        _show_languages(result, Path(labels).name if labels else label_column, prompts or PARALLEL)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from vlcli.commands._console import show_table

    rows = [[shown, *_cells(result, (key,))] for key, shown in NUMBERS.items()]
    header = [f"labels {result['labels']}", f"{result['n']} images, {result['classes']} classes"]
    show_table(e.title(result), header, rows)


def _show_languages(result: dict[str, Any], labels: str, prompts: str) -> None:
    header = [f"labels {labels}", *NUMBERS.values(), "classes"]
    cells = [[*_cells(one, NUMBERS), str(one["classes"])] for one in result["langs"]]
    many.show(result, {"prompts": prompts}, header, [*cells, [*_cells(result["average"], NUMBERS), ""]])


def _cells(result: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [e.cell(result[key], result["ci95"].get(key)) for key in keys]

"""vlcli zeroshot: classification by the names of the classes, and whether texts match."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Option

from vlcli.commands import _evaluation as e
from vlcli.commands import _options as o

EXAMPLES = (
    "vlcli zeroshot runs/lit-filip --data imagenet.jsonl --labels labels.zh.txt --prompts wukong-80",
    "vlcli zeroshot runs/lit-filip --data val.jsonl --label-column group_zh --labels groups.txt --json",
    "vlcli zeroshot runs/lit-filip --data val.jsonl --label-column name",
    "vlcli zeroshot runs/r2d2 --data icm.val.jsonl --task matching",
)


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
    task: Annotated[
        Task,
        Option(
            "--task",
            help="Name the class of each image, or tell whether its text fits it: the AUC of an R2D2's match "
            "probability, with 1 or 0 in the label column.",
        ),
    ] = Task.classify,
    labels: Annotated[
        Path | None,
        Option(
            "--labels",
            metavar="FILE",
            help="A name per line (line k, from 0, for label k) or key<TAB>name; "
            "default: the column's own values.",
        ),
    ] = None,
    label_column: Annotated[
        str, Option("--label-column", metavar="NAME", help="The column that holds the class.")
    ] = "label",
    prompts: e.Prompts = "wukong-80",
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
    bootstrap: e.Bootstrap = 1000,
    seed: o.Seed = 0,
    renames: o.Map = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    json: o.Json = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Top-1, top-5 and mean-per-class accuracy of naming images, or the AUC of matching, with 95 % bootstrap intervals.

    A class is its name in every template. A global model averages the text vectors; a token-wise model
    averages the image→text similarities, for tokens have no mean. Classes that share a name are reported:
    no score tells them apart, and the first one wins.
    """
    from vlcli.commands._console import Console, show_table
    from vlcli.errors import UsageError

    if predictions is not None and task is not Task.matching:
        raise UsageError("--predictions is of --task matching")
    if labels is not None and task is Task.matching:
        raise UsageError("--labels names classes: --task matching has none")
    e.require_run(run)
    from vlcli.evaluation.tasks import classify
    from vlcli.records.atomic import refuse_existing
    from vlcli.shards.pairs import load_pairs
    from vlcli.text.labels import load_labels
    from vlcli.text.prompts import load_prompts

    console = Console("zeroshot", quiet=quiet, verbose=verbose)
    templates = load_prompts(prompts)
    names = load_labels(labels) if labels else None
    if predictions is not None and not force:
        refuse_existing(predictions)
    model = e.open_model(run, device, console)
    table = load_pairs(
        data,
        renames=o.parse_map(renames),
        columns=() if predictions is not None else (label_column,),
        optional=[
            name
            for name in ("split", "lang", label_column)
            if name != label_column or predictions is not None
        ],
        image_root=image_root,
        head=head,
        need_text=task is Task.matching,
    )
    if task is Task.matching:
        from vlcli.evaluation.matching import matching

        with e.announcing(console) as announce:
            found = matching(
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
            )
        if json:
            e.print_json(found)
        else:
            count = f"{found['n']} pairs" + ("" if found["auc"] is None else f", {found['positives']} match")
            show_table(e.title(found), ["", count], [["AUC", e.cell(found["auc"], found["ci95"].get("auc"))]])
        return
    with e.announcing(console) as announce:
        result = classify(
            model,
            table,
            templates,
            column=label_column,
            labels=names,
            ensemble=ensemble.value,
            bootstrap=bootstrap,
            seed=seed,
            split=split,
            lang=lang,
            batch_size=batch_size,
            precision=precision,
            announce=announce,
        )
    if result["duplicate_names"]:
        same = "、".join(result["duplicate_names"][:5])
        console.warn(f"several classes are called {same}: top-1 cannot reach 100")
    if json:
        e.print_json(result)
        return
    names_of = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
    rows = [[shown, e.cell(result[key], result["ci95"].get(key))] for key, shown in names_of.items()]
    header = [f"labels {result['labels']}", f"{result['n']} images, {result['classes']} classes"]
    show_table(e.title(result), header, rows)

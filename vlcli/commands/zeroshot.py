"""vlcli zeroshot: classification by the names of the classes, and whether texts match."""

from __future__ import annotations

import functools
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vlcli.commands import _dataset as sets
from vlcli.commands import _evaluation as e
from vlcli.commands import _languages as many
from vlcli.commands import _options as o
from vlcli.commands import _results as r
from vlcli.commands import _zeroshot_options as z

EXAMPLES = (
    "vlcli zeroshot runs/lit-filip --data imagenet.jsonl --labels labels.zh.txt --prompts wukong-80",
    "vlcli zeroshot runs/lit-filip --data val.jsonl --label-column group_zh --labels groups.txt --json",
    "vlcli zeroshot runs/lit-filip --data val.jsonl --label-column name",
    "vlcli zeroshot runs/altclip-m9 --data imagenet.jsonl --labels 'labels.{lang}.txt' --langs en,zh,ar,ja",
    "vlcli zeroshot runs/lit-filip --data test.jsonl --protocol linear-probe --train train.jsonl --val val.jsonl",
    "vlcli zeroshot runs/flowers --data test.jsonl --label-column group_zh",
    "vlcli zeroshot runs/lit-filip --data aircraft.jsonl --labels aircraft.txt --dataset aircraft "
    "--predictions aircraft.json --predictions-as elevater",
    "vlcli zeroshot runs/lit-filip --task simlex --data SimLex-999.txt",
    "vlcli zeroshot runs/lit-filip --task compositional --dataset sugarcrepe --data sugarcrepe/ --image-root val2017/",
    "vlcli zeroshot runs/r2d2 --data icm.val.jsonl --task matching",
    "vlcli zeroshot runs/r2d2 --task matching --dataset icm --data ICM/ --image-root IQR_IQM_ICR_ICM_images/",
)
PROMPTS = "wukong-80"
MANUAL = {"ENVIRONMENT": (e.CACHE_VARIABLE,)}


class Task(StrEnum):
    """What is asked of a model that was trained for neither."""

    classify = "classify"
    matching = "matching"
    simlex = "simlex"
    compositional = "compositional"


class Ensemble(StrEnum):
    """How scores of several templates become one."""

    similarity = "similarity"
    probability = "probability"


class PredictionsAs(StrEnum):
    """How predictions are written."""

    jsonl = "jsonl"
    elevater = "elevater"


def command(
    run: e.Run,
    data: o.Data,
    task: Annotated[
        Task,
        Option(
            "--task",
            help="Name the class of each image; tell whether its text fits it (the AUC of an R2D2's match probability, "
            "with 1 or 0 in the label column); compare words as people do (--data SimLex-999.txt); tell captions of "
            "nearly the same words apart (--dataset sugarcrepe, winoground or aro).",
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
            help="The five best classes of every image, or, of rows that may be without labels, the match probability "
            "(--task matching).",
        ),
    ] = None,
    predictions_as: Annotated[
        PredictionsAs,
        Option(
            "--predictions-as",
            help="Lines, or ELEVATER's file of one of its sets: the probabilities of all classes. report --format "
            "elevater makes a submission of such files.",
        ),
    ] = PredictionsAs.jsonl,
    protocol: z.ProtocolOption = z.Protocol.zero_shot,
    train: z.Train = None,
    val: z.Val = None,
    features: z.FeaturesOption = z.Features.pre,
    k: z.K = 20,
    l2: z.L2 = None,
    shots: z.Shots = 5,
    dataset: z.Dataset = None,
    metric: z.MetricOption = None,
    classes: z.Classes = None,
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

    RUN may be a classifier of finetune: it knows its classes, and is asked for the values of --label-column.

    With --langs the classes are named in each language: by --labels 'labels.{lang}.txt' from a file each, or
    by --label-column 'name_{lang}' from the data. The interval of the average draws an image for all languages
    at once.
    """
    from vlcli.commands._console import Console
    from vlcli.commands._zeroshot_show import PLACES, show, show_languages, tell
    from vlcli.errors import UsageError

    _refuse_predictions(
        predictions,
        predictions_as,
        {
            f"--task {task.value}": task not in (Task.classify, Task.matching),
            "--langs": langs,
            "--compare": compare,
            f"--protocol {protocol.value}": protocol is not z.Protocol.zero_shot,
        },
        classify=task is Task.classify,
    )
    if labels is not None and task is not Task.classify:
        raise UsageError(f"--labels names classes: --task {task.value} has none")
    if langs is not None and task is not Task.classify:
        raise UsageError(f"--langs names classes in several languages: --task {task.value} has none")
    _refuse(protocol, task=task, train=train, val=val, prompts=prompts, langs=langs)
    published = dataset if task is Task.matching else None  # read in its own files
    if published is not None and label_column != "label":
        raise UsageError("--label-column names a column: a --dataset has its own labels")
    if compare is not None:
        names_only = task is not Task.classify or protocol is not z.Protocol.zero_shot
        r.refuse_with_compare({"--langs": langs, "another --task or --protocol": names_only})
        e.require_run(compare)
    e.require_run(run)
    console = Console("zeroshot", quiet=quiet, verbose=verbose)
    from vlcli.commands import _zeroshot_tasks as tasks

    if task in (Task.simlex, Task.compositional):
        common: dict[str, Any] = {"lang": lang, "bootstrap": bootstrap, "seed": seed}
        common |= {"batch_size": batch_size, "precision": precision}
        kept = r.Lines(results, run, console, force=force)
        where: dict[str, Any] = {"device": device, "json": json, "console": console, "lines": kept}
        if task is Task.simlex:
            tasks.simlex(run, data, {**common, "features": features.value}, **where)
        else:
            tasks.compositional(run, data, dataset, image_root, common, **where)
        return
    public, goes_by, several = _set(None if published else dataset, metric)
    from vlcli.models.quickcheck import kind_of

    if kind_of(run) == "classifier":
        from vlcli.commands import _zeroshot_classifier as own
        from vlcli.shards.pairs import load_pairs

        unread: dict[str, Any] = {
            "--labels": labels,
            "--prompts": prompts,
            "--langs": langs,
            "--classes": classes,
        }
        unread |= {"--compare": compare, "--metric map11": several, "--predictions": predictions}
        unread |= {"--task matching": task is not Task.classify}
        own.refuse(unread | {f"--protocol {protocol.value}": protocol is not z.Protocol.zero_shot})
        options: dict[str, Any] = {"renames": o.parse_map(renames), "columns": (label_column,)}
        options |= {"optional": ["split", "lang"], "image_root": image_root, "need_text": False}
        measured = own.measured(
            run,
            load_pairs(data, head=head, **options),
            r.Lines(results, run, console, force=force),
            console,
            device=device,
            column=label_column,
            metric=goes_by,
            bootstrap=bootstrap,
            seed=seed,
            split=split,
            batch_size=batch_size,
            precision=precision,
        )
        tell(measured, public, console)
        e.print_json(measured) if json else show(measured)
        return
    if compare is not None:
        r.refuse_with_compare({"--metric map11": several})
    from vlcli.evaluation.names_by_language import name_classes, require_columns
    from vlcli.records.atomic import refuse_existing
    from vlcli.shards.pairs import load_pairs
    from vlcli.text.labels import load_labels, load_subset, restricted
    from vlcli.text.languages import varies
    from vlcli.text.prompts import PARALLEL, load_prompts

    subset = load_subset(classes) if classes else None
    templates: Any = None
    names: Any = None
    if langs is None:
        templates = load_prompts(prompts or PROMPTS)
        names = restricted(load_labels(labels) if labels else None, subset)
        namings = {}
    else:
        tags = many.parse(langs, lang)
        namings = name_classes(
            tags, labels=labels, column=label_column, prompts=prompts or PARALLEL, subset=subset
        )
    swept = bool(namings) and varies(label_column)
    columns = [naming.column for naming in namings.values()] if swept else [label_column]
    needed = () if swept or (predictions is not None and task is Task.matching) else columns
    if predictions is not None and not force:
        refuse_existing(predictions)
    rows: dict[str, Any] = {
        "renames": o.parse_map(renames),
        "columns": needed,
        "optional": [
            name for name in dict.fromkeys(("split", "lang", "difficult", *columns)) if name not in needed
        ],
        "image_root": image_root,
        "need_text": task is Task.matching,
    }
    if published is not None:
        reading = sets.read(
            published, data, split=split, task="matching", image_root=image_root, renames=renames
        )
        table = sets.load(reading, console, head=head, columns=("label",))
        split = None  # the rows say it
    else:
        table = load_pairs(data, head=head, **rows)
    require_columns(table, namings)

    from vlcli.evaluation.results_file import settings_of

    lines = r.Lines(results, run, console, force=force)
    model = e.open_model(run, device, console)
    how: dict[str, Any] = {
        "bootstrap": bootstrap,
        "seed": seed,
        "split": split,
        "batch_size": batch_size,
        "precision": precision,
    }
    settings = functools.partial(settings_of, table=table, command="zeroshot", bootstrap=bootstrap, seed=seed)
    settings = functools.partial(settings, split=split, precision=precision)
    if task is Task.matching:
        how |= {"column": label_column, "lang": lang}
        result = tasks.match(
            model, table, settings, how, lines, console, predictions=predictions, force=force
        )
        e.print_json(result) if json else tasks.show_matching(result)
        return
    if protocol is not z.Protocol.zero_shot:
        from vlcli.commands._zeroshot_probe import learn

        tables = {"train": load_pairs(train or [], **rows), "val": load_pairs(val, **rows) if val else None}
        how |= {"column": label_column, "labels": names, "features": features.value, "lang": lang}
        how |= {"metric": goes_by, "k": k, "l2": l2, "shots": shots}
        result = learn(
            model, protocol.value, table, tables, settings, how, lines, cache=cache, console=console
        )
        tell(result, public, console)
        e.print_json(result) if json else show(result)
        return
    from vlcli.commands._zeroshot_names import Names

    written: Any = None
    if predictions is not None:
        from vlcli.evaluation.class_predictions import best_classes, elevater

        if predictions_as is PredictionsAs.elevater:
            calibrated = ensemble is Ensemble.probability or several
            name = Path(run).resolve().name
            written = elevater(predictions, dataset, name, calibrated=calibrated, force=force)
        else:
            written = best_classes(predictions, force=force)
    how |= {"ensemble": ensemble.value, "metric": goes_by, "several": several}
    naming = Names(
        table, templates, names, namings, label_column, lang, settings, how, console, cache, written
    )
    if compare is not None:
        both, difference = naming.compare(model, compare, device, lines)
        if json:
            e.print_json({"results": both, "difference": difference})
        else:
            r.show_comparison(both, difference, [run, compare], PLACES)
        return
    result = naming.measure(model, lines)
    for one in result["langs"] if namings else [result]:
        tell(one, public, console, where=f"{one['lang']}: " if namings else "")
    if namings:
        many.note_saving(result, console)
    if json:
        e.print_json(result)
    elif namings:
        show_languages(result, Path(labels).name if labels else label_column, prompts or PARALLEL)
    else:
        show(result)


def _set(dataset: str | None, metric: z.Metric | None) -> tuple[Any, str, bool]:
    """The public set, the number that is gone by, and whether images may be of several classes."""
    from vlcli.errors import UsageError
    from vlcli.evaluation.class_sets import class_set

    of_other_tasks = {"icm": "matching", "iqm": "matching"}
    of_other_tasks |= dict.fromkeys(("sugarcrepe", "winoground", "aro"), "compositional")
    if dataset in of_other_tasks:
        raise UsageError(f"--dataset {dataset} is of --task {of_other_tasks[dataset]}")
    public = class_set(dataset) if dataset is not None else None
    goes_by = metric.value if metric is not None else "top1" if public is None else public.metric
    return public, goes_by, goes_by == "map11"


def _refuse_predictions(
    path: Path | None, kind: PredictionsAs, others: dict[str, Any], *, classify: bool
) -> None:
    """UsageError where there are no predictions of one model in one language."""
    from vlcli.errors import UsageError

    if path is None and kind is not PredictionsAs.jsonl:
        raise UsageError(f"--predictions-as {kind.value} says how --predictions is written", remedy="name it")
    if kind is PredictionsAs.elevater and not classify:
        raise UsageError("--predictions-as elevater is of classes")
    for name, given in others.items():
        if path is not None and given:
            raise UsageError(f"--predictions does not go with {name}")


def _refuse(
    protocol: z.Protocol,
    *,
    task: Task,
    train: list[str] | None,
    val: list[str] | None,
    prompts: str | None,
    langs: str | None,
) -> None:
    """UsageError for options that would do nothing."""
    from vlcli.errors import UsageError

    if protocol is z.Protocol.zero_shot:
        if train or val:
            raise UsageError(
                "--protocol zero-shot learns from no rows", remedy="say which protocol takes --train"
            )
        return
    if task is not Task.classify:
        raise UsageError(f"--protocol {protocol.value} is of --task classify")
    if prompts is not None or langs is not None:
        raise UsageError(
            f"--protocol {protocol.value} reads no names: it goes with neither --prompts nor --langs"
        )
    if not train:
        raise UsageError(
            f"--protocol {protocol.value} learns from labelled rows", remedy="name them with --train"
        )

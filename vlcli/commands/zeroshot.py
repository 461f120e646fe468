"""vlcli zeroshot: classification by the names of the classes, and whether texts match."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

from vlcli.commands import _dataset as sets
from vlcli.commands import _evaluation as e
from vlcli.commands import _languages as many
from vlcli.commands import _options as o
from vlcli.commands import _results as r
from vlcli.commands import _zeroshot_checks as checks
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


def command(
    run: e.Run,
    data: o.Data,
    task: z.TaskOption = z.Task.classify,
    labels: z.Labels = None,
    label_column: z.LabelColumn = "label",
    prompts: Annotated[str | None, e.prompts_option("wukong-80, with --langs parallel-20.{lang}")] = None,
    ensemble: z.EnsembleOption = z.Ensemble.similarity,
    predictions: z.Predictions = None,
    predictions_as: z.PredictionsAsOption = z.PredictionsAs.jsonl,
    protocol: z.ProtocolOption = z.Protocol.zero_shot,
    train: z.Train = None,
    val: z.Val = None,
    features: z.FeaturesOption = z.Features.pre,
    k: z.K = None,
    l2: z.L2 = None,
    shots: z.Shots = None,
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

    checks.refuse_predictions(
        predictions,
        predictions_as,
        {
            f"--task {task.value}": task not in (z.Task.classify, z.Task.matching),
            "--langs": langs,
            "--compare": compare,
            f"--protocol {protocol.value}": protocol is not z.Protocol.zero_shot,
        },
        classify=task is z.Task.classify,
    )
    if labels is not None and task is not z.Task.classify:
        raise UsageError(f"--labels names classes: --task {task.value} has none")
    if langs is not None and task is not z.Task.classify:
        raise UsageError(f"--langs names classes in several languages: --task {task.value} has none")
    checks.refuse_idle(protocol, task=task, train=train, val=val, prompts=prompts, langs=langs)
    checks.refuse_of_other_protocols(protocol, {"--k": k, "--l2": l2, "--shots": shots})
    published = dataset if task is z.Task.matching else None  # read in its own files
    if published is not None and label_column != "label":
        raise UsageError("--label-column names a column: a --dataset has its own labels")
    if compare is not None:
        names_only = task is not z.Task.classify or protocol is not z.Protocol.zero_shot
        r.refuse_with_compare({"--langs": langs, "another --task or --protocol": names_only})
        e.require_run(compare)
    e.require_run(run)
    console = Console("zeroshot", quiet=quiet, verbose=verbose)
    from vlcli.commands import _zeroshot_tasks as tasks

    if task in (z.Task.simlex, z.Task.compositional):
        common: dict[str, Any] = {"lang": lang, "bootstrap": bootstrap, "seed": seed}
        common |= {"batch_size": batch_size, "precision": precision}
        kept = r.Lines(results, run, console, force=force)
        where: dict[str, Any] = {"device": device, "json": json, "console": console, "lines": kept}
        if task is z.Task.simlex:
            tasks.simlex(run, data, {**common, "features": features.value}, **where)
        else:
            tasks.compositional(run, data, dataset, image_root, common, **where)
        return
    public, goes_by, several = checks.set_of(None if published else dataset, metric)
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
        unread |= {"--task matching": task is not z.Task.classify}
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
    needed = () if swept or (predictions is not None and task is z.Task.matching) else columns
    if predictions is not None and not force:
        refuse_existing(predictions)
    rows: dict[str, Any] = {
        "renames": o.parse_map(renames),
        "columns": needed,
        "optional": [
            name for name in dict.fromkeys(("split", "lang", "difficult", *columns)) if name not in needed
        ],
        "image_root": image_root,
        "need_text": task is z.Task.matching,
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
    settings = functools.partial(settings, split=split, precision=precision, pictures=lines.pictures(table))
    if task is z.Task.matching:
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
        how |= {"metric": goes_by, "k": k or z.NEIGHBOURS, "l2": l2, "shots": shots or z.SHOTS}
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

        if predictions_as is z.PredictionsAs.elevater:
            calibrated = ensemble is z.Ensemble.probability or several
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

"""vlcli finetune: a checkpoint and a task's pairs → a run directory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from vlcli.commands import _dataset as sets
from vlcli.commands import _finetune_diffusion as diffusion
from vlcli.commands import _finetune_t2i as t2i
from vlcli.commands._options import (
    SEED,
    DataOrNone,
    Device,
    DryRun,
    Force,
    Head,
    ImageRoot,
    Map,
    Quiet,
    Resume,
    Set,
    Verbose,
    parse_map,
)
from vlcli.commands._training import (
    GlobalBatch,
    RunOutput,
    TrainPrecision,
    curves,
    ended,
    fate,
    recipe_settings,
    run_directory,
    speaks,
)
from vlcli.commands._zeroshot_options import L2
from vlcli.commands.pretrain import RunProgress
from vlcli.errors import UsageError

EXAMPLES = (
    "vlcli finetune runs/r2d2 --data shards/ --val val.jsonl -o runs/coco-cn",
    "vlcli finetune runs/r2d2 --task matching --data icm.train.jsonl --val icm.val.jsonl -o runs/icm",
    "vlcli finetune runs/lit-filip --recipe wukong-retrieval --data shards/ -o runs/flickr30k",
    "vlcli finetune runs/lit-filip --task linear-probe --data train.jsonl --val val.jsonl --test test.jsonl -o probe",
    "vlcli finetune runs/lit-filip --task classify --recipe emoji-classify --data train.jsonl --val val.jsonl "
    "--test test.jsonl -o runs/birds",
    "vlcli finetune runs/lit-filip --task classify --recipe vtab --data train.jsonl --val val.jsonl --runs 3 -n",
    "vlcli finetune runs/r2d2 --task caption --data shards/ --val val.jsonl -o runs/aic-icc",
    "vlcli finetune stable-diffusion-v1-4/ --task diffusion-kv --encoder runs/altclip-m9 --data shards/ -o runs/kv",
    "vlcli finetune runs/r2d2 --task t2i --stage clip --data shards/ --val val.jsonl -o runs/clip",
    "vlcli finetune runs/clip --task t2i --stage prior --recipe emoji-t2i-prior --data shards/ -o runs/prior",
    "vlcli finetune runs/r2d2 --dataset flickr30k-cna --data CNA/ --image-root flickr30k-images/ -o runs/cna",
)

MANUAL = {
    "RECIPES": (
        ("r2d2-retrieval", "R2D2 App. C: pre-ranking with target distillation, and ranking; for an r2d2."),
        ("r2d2-matching", "R2D2 App. C: ranking of labelled pairs; for an r2d2."),
        ("r2d2-caption", "R2D2 App. C: captions, from left to right; for an r2d2."),
        ("filip-retrieval", "FILIP Table 10: 392 pixels, all weights, 1/#positives for each caption."),
        ("align-flickr30k, align-coco", "ALIGN §5.1: 3,000 or 6,000 steps of pre-training's loss at 1e-5."),
        ("align-imagenet", "ALIGN §5.3: the head on frozen features, then all layers; --task classify."),
        (
            "align-fine-grained",
            "ALIGN §5.3: the same for Flowers, Pets, Cars, Food101, at one rate; --task classify.",
        ),
        ("vtab", "VTAB as in ALIGN §5.3: 50 trials by --val, then all rows; --task classify."),
        ("emoji-classify", "The same in miniature, for the emoji corpus; --task classify."),
        (
            "altclip-diffusion",
            "AltCLIP §5.4, which gives no values: Stable Diffusion's keys and values for AltCLIP.",
        ),
        ("emoji-diffusion", "The same in miniature: a tiny diffusion model, 32 pixels."),
        (
            "r2d2-t2i-clip, -prior, -decoder",
            "R2D2 App. C: the three parts of text-to-image, of which the first is fixed while the others learn.",
        ),
        ("wukong-retrieval", "Wukong §5.3, which gives no values: FILIP's, at the checkpoint's resolution."),
    ),
}


class Task(StrEnum):
    """What is learnt."""

    retrieval = "retrieval"
    matching = "matching"
    caption = "caption"
    linear_probe = "linear-probe"
    classify = "classify"
    diffusion_kv = "diffusion-kv"
    t2i = "t2i"


def command(
    checkpoint: Annotated[
        str,
        Argument(
            metavar="RUN",
            help="A run directory (its best checkpoint) or a checkpoint to start from; of diffusion-kv a directory in "
            "Stable Diffusion's format.",
        ),
    ],
    task: Annotated[
        Task,
        Option(
            "--task",
            help="Retrieval; matching: pairs whose label is 1 or 0, of an R2D2; caption: to write the texts, from an "
            "R2D2; linear-probe: classes of images, by a head on frozen features; classify: by that head, then by all "
            "layers; t2i: pictures of texts; diffusion-kv: keys and values of a diffusion model.",
        ),
    ] = Task.retrieval,
    stage: Annotated[
        t2i.Stage | None,
        Option(
            "--stage",
            help="Of --task t2i, in this order: the dual encoder; then with its RUN, which stays as it is, the prior, "
            "from texts to its image embeddings, and the decoder, from those to pictures.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        Option(
            "--recipe",
            metavar="NAME|FILE.toml",
            help="How; without it r2d2-matching, r2d2-caption, r2d2-t2i-STAGE, altclip-diffusion, for classes "
            "align-fine-grained, or by the checkpoint: r2d2-retrieval, filip-retrieval (of tokens), wukong-retrieval.",
            show_default=False,
        ),
    ] = None,
    encoder: diffusion.Encoder = None,
    data: DataOrNone = None,
    dataset: sets.Dataset = None,
    val: Annotated[
        list[str] | None,
        Option(
            "--val",
            metavar="FILE",
            help="Rows that choose the best checkpoint, or a probe's penalty: never the test's; repeatable.",
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        Option(
            "--test",
            metavar="FILE",
            help="Rows that the classifier is measured on, once, at the end; repeatable.",
        ),
    ] = None,
    label_column: Annotated[
        str,
        Option(
            "--label-column",
            metavar="NAME",
            help="The column of 1 and 0 (--task matching), or of the classes.",
        ),
    ] = "label",
    l2: L2 = None,
    runs: Annotated[
        int,
        Option(
            "--runs", min=1, metavar="N", help="Of --task classify: as many seeds from --seed on, mean ± sd."
        ),
    ] = 1,
    output: RunOutput = None,
    overrides: Set = None,
    map_: Map = None,
    image_root: ImageRoot = None,
    head: Head = None,
    seed: Annotated[int | None, SEED] = None,
    precision: TrainPrecision = None,
    batch_size: GlobalBatch = None,
    device: Device = "auto",
    resume: Resume = False,
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Go on from a checkpoint on the pairs of one task.

    The model is the checkpoint's; what the recipe says of it (its resolution, what is locked) changes it. The score of
    the checkpoint as it came is said before the first step; afterwards --val chooses the best. What only pre-training
    has, R2D2's head for masked words and its patch mask, stays behind, and is named.

    --task caption makes a captioner of an R2D2: its picture side, and its text side to write from left to right; vlcli
    generate --caption uses it. --val chooses by the loss of a token, or, with --set train.best=cider_char (or
    cider_jieba), by CIDEr-D of what is written greedily.

    --task linear-probe leaves every weight as it is, and writes a classifier: the image tower with a head on its pooled
    output, by L-BFGS, the penalty by CLIP's search on --val, then from both. vlcli zeroshot measures it on other rows.

    --task classify learns such a head step by step, then all layers from it, the tower at a lower rate, and says what
    the head alone scored; both are runs, the first in DIR/probe. Batch normalisation keeps its statistics. A recipe
    with trials, as vtab's, writes DIR/trials.jsonl and learns from --data and --val by the best of them. With --runs
    there is a DIR/seed-N for each, and DIR/runs.json has mean and standard deviation. --test is looked at once, at
    the end.

    --task t2i makes pictures of texts in three stages. A prior and a decoder say at --val their loss with the rows'
    conditions, without any, and with those of other rows; a prior also how often the embedding that it draws for a text
    finds its picture. vlcli generate draws with all three. They need diffusers, which the extra generate brings.

    --task diffusion-kv reads a UNet, a VAE and a scheduler in Stable Diffusion's format, or AltDiffusion's, and trains
    the keys and values of the cross-attention, nothing else, so that the states of --encoder guide it. They alone are
    saved; vlcli generate puts them back. --val chooses by the loss, with a noise and a time that stay the same, and
    says it without texts and with other pairs' texts, too.

    With --dataset the pairs are the train split of a public set's published files, and those of --val its val split.
    """
    from vlcli.commands._console import Console
    from vlcli.models.quickcheck import find_checkpoint
    from vlcli.recipes import load_finetune_recipe, to_toml

    if task is not Task.diffusion_kv:
        find_checkpoint(checkpoint)
    stage = t2i.stage_of(task.value, stage)
    draws = stage in ("prior", "decoder")
    if dataset is not None and (data is None or label_column != "label"):
        cause = "has no --data" if data is None else "has its own labels"
        raise UsageError(f"--dataset {dataset} {cause}", remedy="--data DIR" if data is None else "")
    if not speaks():  # a launcher's other processes: the first one speaks
        quiet, verbose = True, 0
        if dry_run:
            return
    console = Console("finetune", quiet=quiet, verbose=verbose)
    if task is Task.classify:
        from vlcli.commands import _finetune_classes as classes
        from vlcli.commands._finetune_classify import classify

        classes.refuse({"--encoder": encoder, "--dataset": dataset, "--l2": l2 is not None}, task.value)
        rows = classes.Rows(data, val, test, label_column, head, parse_map(map_), image_root)
        settings = recipe_settings(overrides, seed=seed, precision=precision, batch_size=batch_size)
        fates = {"resume": resume, "force": force, "dry_run": dry_run}
        classify(checkpoint, rows, recipe, settings, output, console, runs=runs, device=device, **fates)
        return
    if runs > 1:
        raise UsageError(f"--task {task.value} has no --runs")
    if task is Task.linear_probe:
        from vlcli.commands import _finetune_classes as classes

        if overrides:  # which may stand in the environment for the other tasks
            console.warn(f"--set has no effect: --task {task.value} has no recipe")
        unread = {"--encoder": encoder, "--recipe": recipe, "--seed": seed is not None, "--resume": resume}
        classes.refuse(unread | {"--dataset": dataset, "--batch-size": batch_size}, task.value)
        rows = classes.Rows(data, val, test, label_column, head, parse_map(map_), image_root)
        classes.linear_probe(
            checkpoint,
            rows,
            output or Path("runs") / task.value,
            console,
            l2=l2,
            device=device,
            precision=precision or "fp32",
            force=force,
            dry_run=dry_run,
        )
        return
    if test or l2 is not None:
        raise UsageError(f"--task {task.value} has no {'--test' if test else '--l2'}")
    if task is Task.diffusion_kv:
        from vlcli.commands import _finetune_classes as classes

        classes.refuse({"--dataset": dataset, "--label-column": label_column != "label"}, task.value)
        diffusion.key_values(
            checkpoint,
            encoder,
            recipe,
            diffusion.Rows(data, val, head, parse_map(map_), image_root),
            output,
            console,
            overrides=overrides,
            seed=seed,
            precision=precision,
            batch_size=batch_size,
            device=device,
            resume=resume,
            force=force,
            dry_run=dry_run,
        )
        return
    if encoder is not None:
        raise UsageError(f"--task {task.value} has no --encoder")

    if task is Task.caption:
        from vlcli.commands import _finetune_caption as captions

        captions.require_r2d2(checkpoint)

    import vlcli
    from vlcli.shards.pairs import load_pairs
    from vlcli.training.finetuning import fine_tune, refuse_one_sided, started, task_of

    settings = recipe_settings(overrides, seed=seed, precision=precision, batch_size=batch_size)
    resolved: Any
    if stage is not None and draws:
        resolved = t2i.recipe_of(stage, recipe, settings)
        source = vlcli.load(checkpoint)
    else:
        source = vlcli.load(checkpoint)
        recipe = recipe or _recipe_for(task, source.config)
        resolved = load_finetune_recipe(recipe, source.config.model_dump(mode="json"), settings)
        kind = task_of(task.value, resolved)
    out = run_directory(output, resolved.name, resume=resume, force=force, dry_run=dry_run)
    reads = "retrieval" if task in (Task.caption, Task.t2i) else task.value
    column: dict[str, Any] = {"column": label_column} if task is Task.matching else {}
    options: dict[str, Any] = {
        "renames": parse_map(map_),
        "group": resolved.data.group or None,
        "columns": tuple(column.values()),
        "image_root": image_root,
    }
    if dataset is not None:
        reading = sets.read(
            dataset, data or (), split="train", task=reads, image_root=image_root, renames=map_
        )
        train = sets.load(reading, console, head=head, pairs_only=True, columns=options["columns"])
    else:
        train = load_pairs(data or ["shards/"], head=head, **options)
    validation = load_pairs(val, **options) if val else None
    if dataset is not None and not val:
        reading = sets.read(dataset, data or (), split="val", task=reads, image_root=image_root)
        validation = sets.load(reading, console, pairs_only=True, columns=options["columns"])
    if validation is not None and not len(validation):
        raise UsageError(f"--val {validation.source}: no rows")
    if validation is not None and task is Task.matching:
        refuse_one_sided(validation, label_column)
    if dry_run:
        print(
            f"# {len(train)} pairs, {resolved.steps(len(train))} steps of {resolved.data.batch_size}, peak lr"
            f" {resolved.peak_lr:g}; {fate(out, resume=resume, force=force)}"
        )
        print(to_toml(resolved), end="")
        return
    if draws:
        how: dict[str, Any] = {"device": device, "resume": resume, "force": force}
        t2i.train(source, resolved, train, validation, out, console, **how)
        return
    if task is Task.caption:
        model: Any = captions.start(source, resolved.model, Path(checkpoint), console)
    else:
        model, left = started(source, resolved.model, Path(checkpoint))
        if left:
            console.note(f"stays behind: {len(left)} tensors of pre-training alone, {left[0]} first")
    with RunProgress(console) as reporter:
        run = kind(
            resolved,
            train,
            out,
            reporter,
            validation=validation,
            start=model,
            device=device,
            resume=resume,
            force=force,
            **column,
        )
        with curves(out, console):
            result = fine_tune(run, lambda found: reporter.validated(0, found, False))
    ended(console, result, resolved.train.best, out)


def _recipe_for(task: Task, model: Any) -> str:
    """The recipe of the paper that a checkpoint looks like."""
    if task is Task.matching:
        return "r2d2-matching"
    if task is Task.caption:
        return "r2d2-caption"
    if task is Task.t2i:
        return "r2d2-t2i-clip"
    if model.kind == "r2d2":
        return "r2d2-retrieval"
    return "filip-retrieval" if model.similarity == "tokenwise" else "wukong-retrieval"

"""vlcli pretrain: a recipe and pairs → a run directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands._evaluation import print_json
from vlcli.commands._options import (
    SEED,
    DataOrNone,
    Device,
    DryRun,
    Force,
    Head,
    ImageRoot,
    Init,
    Json,
    Map,
    MaxBad,
    Quiet,
    Resume,
    Set,
    Verbose,
    default_jobs,
    parse_init,
    parse_map,
)
from vlcli.commands._plan import mixture_lines, plan_lines, profile_rows, profile_title
from vlcli.commands._training import (
    GlobalBatch,
    Progress,
    RecipeName,
    RunOutput,
    TrainPrecision,
    curves,
    fate,
    recipe_settings,
    run_directory,
    speaks,
    towers_of,
)
from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console

EXAMPLES = (
    "vlcli pretrain --recipe emoji-lit-filip --data demo/shards --val demo/val.jsonl -o demo/run",
    "vlcli pretrain --recipe lit-filip --init image=ViT-L-14.pt --data shards/ --set data.batch_size=1024",
    "vlcli pretrain --recipe filip-base --data shards/:0.8,pairs.parquet:0.2 --set data.epoch_pairs=1000000",
    "vlcli pretrain --recipe altclip-m9 --init image=ViT-L-14.pt --init runs/t --data shards/",
    "vlcli pretrain --recipe emoji-lit-filip --data demo/shards --profile 10",
    "accelerate launch -m vlcli pretrain --recipe lit-filip --init image=ViT-L-14.pt --data shards/",
)

MANUAL = {
    "ENVIRONMENT": (
        ("VLCLI_CACHE", "Where features of locked image towers are cached; default: $XDG_CACHE_HOME/vlcli."),
        (
            "RANK, WORLD_SIZE, ...",
            "Set by accelerate and torchrun: the processes of one run. The first one speaks.",
        ),
        (
            "WANDB_MODE, WANDB_PROJECT, ...",
            "Read by W&B. Without a key for its server its run stays in DIR/wandb/, and wandb sync sends it.",
        ),
    ),
    "FILES": (
        ("DIR/recipe.toml", "The recipe, resolved."),
        ("DIR/metrics.jsonl", "One object a logged step."),
        (
            "DIR/checkpoints/step-00001000/",
            "Weights (with train.ema their moving average), tokenizer, configuration, model card, the scores of its "
            "validation as results.jsonl, and the state that --resume reads.",
        ),
        ("DIR/last, DIR/best", "Links to the newest checkpoint and to the best on --val."),
        (
            "DIR/curves.png",
            "Loss, validation, temperature, learning rate and speed, drawn when the run ends or stops.",
        ),
        ("DIR/tensorboard/, DIR/wandb/", "What the trackers keep."),
    ),
}


def command(
    recipe: RecipeName,
    data: DataOrNone = None,
    val: Annotated[
        list[str] | None,
        Option(
            "--val", metavar="FILE", help="Pairs whose retrieval chooses the best checkpoint; repeatable."
        ),
    ] = None,
    val_label_column: Annotated[
        str | None,
        Option(
            "--val-label-column",
            metavar="NAME",
            help="Column of --val with a class: validation is zero-shot too; train.best=zeroshot.top1 chooses by it.",
            show_default="label, with --val-labels",
        ),
    ] = None,
    val_labels: Annotated[
        Path | None,
        Option(
            "--val-labels",
            metavar="FILE",
            help="Names of the classes, as zeroshot --labels takes them; default: the column's own values.",
        ),
    ] = None,
    val_prompts: Annotated[
        str | None,
        Option(
            "--val-prompts",
            metavar="wukong-80|none|FILE",
            help="Templates around the names of the classes.",
            show_default="wukong-80",
            autocompletion=complete.prompts,
        ),
    ] = None,
    output: RunOutput = None,
    overrides: Set = None,
    init: Init = None,
    map_: Map = None,
    image_root: ImageRoot = None,
    head: Head = None,
    max_bad: MaxBad = "0",
    seed: Annotated[int | None, SEED] = None,
    precision: TrainPrecision = None,
    batch_size: GlobalBatch = None,
    device: Device = "auto",
    track: Annotated[
        str | None,
        Option(
            "--track",
            metavar="tensorboard,wandb|none",
            help="Trackers beside metrics.jsonl: the recipe's train.trackers.",
            show_default="tensorboard, where it is installed",
            autocompletion=complete.words("tensorboard", "wandb", "none"),
        ),
    ] = None,
    resume: Resume = False,
    force: Force = False,
    dry_run: DryRun = False,
    profile: Annotated[
        int | None,
        Option(
            "--profile",
            min=1,
            metavar="STEPS",
            help="Take so many steps to say where their time goes, and leave no run.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Train a dual encoder, or an R2D2, by a recipe.

    Reads shards/ where --data names nothing. --data PATH:WEIGHT,PATH:WEIGHT draws from several sources in these shares,
    of whatever format each is; --set data.epoch_pairs=N says how many pairs an epoch then has, where not as many as
    there are. No pair of a source comes again before all of it came. What exists under its whole name is a path,
    whatever colons it has.

    An image that cannot be read or decoded, and a shard that is damaged, is left out of training and said once, up to
    --max-bad pairs. --seed, --precision, --batch-size and --track are the recipe's train.seed, train.precision,
    data.batch_size and train.trackers where they are given. --resume goes on from the newest whole checkpoint.

    A locked image tower without image augmentation encodes each image once: its features are cached on disk and
    training runs at the speed of the text side. Writes recipe.toml, metrics.jsonl, checkpoints/step-N, curves.png, and
    the links `last` and `best` (the best by the recipe's `train.best` on --val). A setting that has no effect is said.

    --dry-run prints the plan and the resolved recipe. --profile prints pairs/s, operations, memory, the share of the
    machine's matrix products that is reached, and which parts of a step take its time. --json prints either, or what
    the run came to, as one object.
    """
    from vlcli.commands._console import Console
    from vlcli.recipes import load_recipe, to_toml

    if profile is not None and (dry_run or resume or val):
        raise UsageError("--profile takes steps of training alone: without --dry-run, --resume and --val")
    settings = recipe_settings(overrides, seed=seed, precision=precision, batch_size=batch_size)
    if track is not None:
        settings.append(f"train.trackers={_listed(track)}")
    resolved = load_recipe(recipe, settings)
    free = dry_run or profile is not None  # nothing is written there
    out = run_directory(output, resolved.name, resume=resume, force=force, dry_run=free)
    if not speaks():  # a launcher's other processes: the first one speaks
        quiet, verbose = True, 0
        if dry_run:
            return
    towers = parse_init(init, whole=towers_of)
    if not resume:
        from vlcli.models.initial import find_weights, tokenizer_for

        # missing weights are said before anything is read
        find_weights(resolved.model.image, towers.get("image"))
        tokenizer_for(resolved.model.text, find_weights(resolved.model.text, towers.get("text")))

    from vlcli.models.checkpoint import resolve_device
    from vlcli.records.bad import parse_max_bad
    from vlcli.shards.mixture import load_mixture
    from vlcli.shards.rows import ZERO_FIELDS
    from vlcli.training.plan import Plan
    from vlcli.training.r2d2 import pretraining

    console = Console("pretrain", quiet=quiet, verbose=verbose)
    group = resolved.data.group or None
    renames = parse_map(map_)
    if profile is not None:
        from vlcli.training.profile import pairs_needed

        needed = pairs_needed(resolved, profile)
        head = needed if head is None else min(head, needed)
    train = load_mixture(
        data or ["shards/"],
        renames=renames,
        group=group,
        optional=ZERO_FIELDS if "field" in resolved.data.draw else (),
        image_root=image_root,
        head=head,
        skip_damaged=any(parse_max_bad(max_bad)),
        jobs=default_jobs(),
    )
    validation, classes = _validation(
        val, val_label_column, val_labels, val_prompts, renames=renames, group=group, image_root=image_root
    )
    plan = Plan(
        resolved,
        train,
        out,
        validation=validation,
        classes=classes,
        device=resolve_device(device),
        processes=int(os.environ.get("WORLD_SIZE", "1")),
        overrides=settings,
        init=towers,
        resumed=resume and any(out.glob("checkpoints/step-*")),
    )
    if dry_run:
        outcome = fate(out, resume=resume, force=force)
        if json:
            print_json(
                {"plan": {**plan.as_dict(), "fate": outcome}, "recipe": resolved.model_dump(mode="json")}
            )
            return
        lines = plan_lines(plan.as_dict(), outcome)
        print("".join(f"# {line}\n" for line in lines) + to_toml(resolved), end="")
        return
    for text in plan.warnings:
        console.warn(text)
    how: dict[str, Any] = {
        "init_image": towers.get("image"),
        "init_text": towers.get("text"),
        "device": device,
        "max_bad": max_bad,
    }
    if profile is not None:
        _profile(pretraining(resolved), profile, resolved, train, console, how, json=json and speaks())
        return
    with RunProgress(console) as reporter:
        run = pretraining(resolved)(
            resolved,
            train,
            out,
            reporter,
            validation=validation,
            classes=classes,
            resume=resume,
            force=force,
            **how,
        )
        with curves(out, console):
            result = run.run()
    best = f", best {resolved.train.best} {result['best']:.1f}" if result["best"] is not None else ""
    console.note(f"{result['steps']} steps{best}; {out}")
    if json and speaks():
        print_json(result)


def _listed(track: str) -> list[str]:
    """`wandb,tensorboard` → a list of TOML; none of them with "none"."""
    names = [name.strip() for name in track.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _validation(
    val: list[str] | None, column: str | None, labels: Path | None, prompts: str | None, **how: Any
) -> tuple[Any, Any]:
    """The table of --val, and its classes where there are options for them."""
    from vlcli.shards.pairs import load_pairs

    wanted = column is not None or labels is not None
    if not wanted and prompts is not None:
        raise UsageError("--val-prompts is for classes", remedy="say which: --val-label-column, --val-labels")
    if not val:
        if wanted:
            raise UsageError("--val-label-column and --val-labels are of the rows of --val")
        return None, None
    if not wanted:
        table = load_pairs(val, **how)
    else:
        column = column or "label"
        table = load_pairs(val, columns=(column,), need_text=False, **how)
    if not len(table):
        raise UsageError(f"--val {table.source}: no rows")
    if column is None:
        return table, None
    from vlcli.text.labels import load_labels
    from vlcli.text.prompts import load_prompts
    from vlcli.training.validation import Classes

    names = load_labels(labels) if labels is not None else None
    return table, Classes.of(table, column, names, load_prompts(prompts or "wukong-80"))


def _profile(
    build: Any, steps: int, recipe: Any, train: Any, console: Console, how: dict[str, Any], *, json: bool
) -> None:
    from vlcli.commands._console import show_table
    from vlcli.training.profile import profile

    with _Quiet(console) as reporter:
        found = profile(build, recipe, train, reporter, steps=steps, **how)
    if json:
        print_json(found)
    elif speaks():
        show_table(profile_title(found), ["", ""], profile_rows(found))


class RunProgress(Progress):
    """A dual encoder's run."""

    def plan(self, plan: dict[str, Any]) -> None:
        chance = f"loss by chance {plan['chance_loss']:.2f}"
        self.about(plan, f"{plan['pairs']} pairs, {plan['images']} images, {chance}")
        for line in mixture_lines(plan["mixture"]):
            self.console.note(line)
        if plan["feature_cache"]:
            cache = plan["feature_cache"]
            self.console.note(
                f"  locked features cached: {cache['bytes'] / 2**20:.0f} MiB in {cache['folder']}"
            )

    def features(self, done: int, total: int) -> None:
        self._advance("features", done, total, "images")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        chance = f" of {values['chance_loss']:.2f}" if "chance_loss" in values else ""
        temperature = f" τ {values['temperature']:.3f}" if "temperature" in values else ""
        line = (
            f"loss {values['loss']:.3f}{chance} lr {values['lr']:.1e}{temperature}"
            f" {values['pairs_per_second']:.0f} pairs/s wait {100 * values['data_wait']:.0f}%"
        )
        self._advance("training", step, total, line)

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        mark = "  (best so far)" if best else ""
        if "loss" in found:
            said = f"loss {found['loss']:.3f} of {found['tokens']:,} tokens of {found['texts']:,} texts"
            said += "".join(
                f", {name} {value:.1f}" for name, value in found.items() if name.startswith("cider_")
            )
            self.console.note(f"step {step}: {said}{mark}")
            return
        if "auc" in found:
            self.console.note(f"step {step}: AUC {found['auc']:.1f} of {found['n']} pairs{mark}")
            return
        recalls = [
            f"R@1/5/10 {name} " + "/".join(f"{found[side][f'R@{k}']:.1f}" for k in (1, 5, 10))
            for side, name in (("i2t", "image→text"), ("t2i", "text→image"))
            if found.get(side) is not None
        ]
        if "zeroshot" in found:
            recalls.append("zero-shot top-1/5 {top1:.1f}/{top5:.1f}".format(**found["zeroshot"]))
        self.console.note(f"step {step}: {', '.join(recalls)}{mark}")


class _Quiet(RunProgress):
    """A run that is only measured: of its features and warnings alone."""

    def plan(self, plan: dict[str, Any]) -> None:
        pass

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        pass

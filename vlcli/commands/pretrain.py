"""vlcli pretrain: a recipe and pairs → a run directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from vlcli.commands._options import (
    PRECISION,
    SEED,
    DataOrNone,
    Device,
    DryRun,
    Force,
    Head,
    ImageRoot,
    Init,
    Map,
    MaxBad,
    Quiet,
    Resume,
    Set,
    Verbose,
    parse_init,
    parse_map,
)
from vlcli.commands._training import Progress, RecipeName, fate, towers_of
from vlcli.errors import UsageError

EXAMPLES = (
    "vlcli pretrain --recipe emoji-lit-filip --data demo/shards --val demo/val.jsonl -o demo/run",
    "vlcli pretrain --recipe lit-filip --init image=ViT-L-14.pt --data shards/ --set data.batch_size=1024",
    "vlcli pretrain --recipe filip-base --data web/:0.8,books.parquet:0.2 --set data.epoch_pairs=1000000",
    "vlcli pretrain --recipe altclip-m9 --init image=ViT-L-14.pt --init runs/t --data shards/",
    "accelerate launch -m vlcli pretrain --recipe lit-filip --init image=ViT-L-14.pt --data shards/",
)

MANUAL = {
    "ENVIRONMENT": (
        ("VLCLI_CACHE", "Where features of locked image towers are cached; default: $XDG_CACHE_HOME/vlcli."),
        (
            "RANK, WORLD_SIZE, ...",
            "Set by accelerate and torchrun: the processes of one run. The first one speaks.",
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
    output: Annotated[
        Path | None,
        Option("-o", "--output", metavar="DIR", help="The run directory.", show_default="runs/RECIPE"),
    ] = None,
    overrides: Set = None,
    init: Init = None,
    map_: Map = None,
    image_root: ImageRoot = None,
    head: Head = None,
    max_bad: MaxBad = "0",
    seed: Annotated[int | None, SEED] = None,
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, PRECISION] = None,
    batch_size: Annotated[
        int | None,
        Option("--batch-size", min=2, metavar="N", help="Pairs a step, over all processes together."),
    ] = None,
    device: Device = "auto",
    resume: Resume = False,
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Train a dual encoder, or an R2D2, by a recipe.

    Reads shards/ where --data names nothing. --data PATH:WEIGHT,PATH:WEIGHT draws from several sources in these shares,
    of whatever format each is; --set data.epoch_pairs=N says how many pairs an epoch then has, where not as many as
    there are. No pair of a source comes again before all of it came. What exists under its whole name is a path,
    whatever colons it has.

    An image that cannot be read or decoded, and a shard that is damaged, is left out of training and said once, up to
    --max-bad pairs. --seed, --precision and --batch-size are the recipe's train.seed,
    train.precision and data.batch_size where they are given. --resume goes on from the newest whole checkpoint.

    A locked image tower without image augmentation encodes each image once: its features are cached on disk and
    training runs at the speed of the text side. Writes recipe.toml, metrics.jsonl, checkpoints/step-N, and the links
    `last` and `best` (the best by the recipe's `train.best` on --val).
    """
    from vlcli.commands._console import Console
    from vlcli.recipes import load_recipe, to_toml
    from vlcli.training.run_directory import refuse_occupied

    if force and resume:
        raise UsageError("--force and --resume exclude each other")
    settings = list(overrides or [])
    for key, value in (("train.seed", seed), ("train.precision", precision), ("data.batch_size", batch_size)):
        if value is not None:
            settings.append(f"{key}={value}")
    resolved = load_recipe(recipe, settings)
    out = output or Path("runs") / resolved.name
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: not a directory")
    leads = os.environ.get("RANK", "0") == "0"
    if leads and not dry_run:  # before anything is loaded
        refuse_occupied(out, resume=resume, force=force)
    if not leads:  # a launcher's other processes: the first one speaks
        quiet, verbose = True, 0
        if dry_run:
            return
    towers = parse_init(init, whole=towers_of)
    if not resume:
        from vlcli.models.initial import find_weights, tokenizer_for

        # missing weights are said before anything is read
        find_weights(resolved.model.image, towers.get("image"))
        tokenizer_for(resolved.model.text, find_weights(resolved.model.text, towers.get("text")))

    from vlcli.records.bad import parse_max_bad
    from vlcli.shards.mixture import load_mixture
    from vlcli.shards.pairs import load_pairs
    from vlcli.shards.rows import ZERO_FIELDS
    from vlcli.training.order import per_epoch
    from vlcli.training.r2d2 import pretraining

    console = Console("pretrain", quiet=quiet, verbose=verbose)
    group = resolved.data.group or None
    renames = parse_map(map_)
    train = load_mixture(
        data or ["shards/"],
        renames=renames,
        group=group,
        optional=ZERO_FIELDS if "field" in resolved.data.draw else (),
        image_root=image_root,
        head=head,
        skip_damaged=any(parse_max_bad(max_bad)),
    )
    validation = load_pairs(val, renames=renames, group=group, image_root=image_root) if val else None
    if validation is not None and not len(validation):
        raise UsageError(f"--val {validation.source}: no rows")
    if dry_run:
        steps = resolved.steps(len(train))
        scored = f", chosen by {resolved.train.best} on {len(validation)} pairs" if validation else ""
        print(
            f"# {len(train)} pairs, {steps} steps of {resolved.data.batch_size}, peak lr {resolved.peak_lr:g}{scored};"
            f" {fate(out, resume=resume, force=force)}"
        )
        for line in _mixture(per_epoch(train.shares, resolved.data)):
            print(f"# {line}")
        print(to_toml(resolved), end="")
        return
    with RunProgress(console) as reporter:
        run = pretraining(resolved)(
            resolved,
            train,
            out,
            reporter,
            validation=validation,
            init_image=towers.get("image"),
            init_text=towers.get("text"),
            device=device,
            resume=resume,
            force=force,
            max_bad=max_bad,
        )
        result = run.run()
    best = f", best {resolved.train.best} {result['best']:.1f}" if result["best"] is not None else ""
    console.note(f"{result['steps']} steps{best}; {out}")


def _mixture(sources: list[tuple[str, int, float]]) -> list[str]:
    return [f"  {source}: {pairs} pairs an epoch, each {times:.3g} times" for source, pairs, times in sources]


class RunProgress(Progress):
    """A dual encoder's run."""

    def plan(self, plan: dict[str, Any]) -> None:
        chance = f"loss by chance {plan['chance_loss']:.2f}"
        self.about(plan, f"{plan['pairs']} pairs, {plan['images']} images, {chance}")
        for line in _mixture(plan["mixture"]):
            self.console.note(line)
        if plan["feature_cache"]:
            cache = plan["feature_cache"]
            self.console.note(
                f"  locked features cached: {cache['bytes'] / 2**20:.0f} MiB in {cache['folder']}"
            )

    def features(self, done: int, total: int) -> None:
        self._advance("features", done, total, "images")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        temperature = f" τ {values['temperature']:.3f}" if "temperature" in values else ""
        line = (
            f"loss {values['loss']:.3f} lr {values['lr']:.1e}{temperature}"
            f" {values['pairs_per_second']:.0f} pairs/s wait {100 * values['data_wait']:.0f}%"
        )
        self._advance("training", step, total, line)

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        mark = "  (best so far)" if best else ""
        if "auc" in found:
            self.console.note(f"step {step}: AUC {found['auc']:.1f} of {found['n']} pairs{mark}")
            return
        sides = [
            f"{name} " + "/".join(f"{found[side][f'R@{k}']:.1f}" for k in (1, 5, 10))
            for side, name in (("i2t", "image→text"), ("t2i", "text→image"))
            if found[side] is not None
        ]
        self.console.note(f"step {step}: R@1/5/10 {', '.join(sides)}{mark}")

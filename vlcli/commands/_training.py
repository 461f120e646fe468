"""What the training commands share: the recipe, the fate of a run's directory, and the run on stderr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands._options import PRECISION

if TYPE_CHECKING:
    from vlcli.commands._console import Console

RecipeName = Annotated[
    str,
    Option(
        "--recipe",
        metavar="NAME|FILE.toml",
        help="What to train and how: see vlcli recipes list.",
        autocompletion=complete.recipes,
    ),
]

RunOutput = Annotated[
    Path | None,
    Option("-o", "--output", metavar="DIR", help="The run directory.", show_default="runs/RECIPE"),
]
TrainPrecision = Annotated[Literal["fp32", "bf16", "fp16"] | None, PRECISION]
GlobalBatch = Annotated[
    int | None,
    Option("--batch-size", min=2, metavar="N", help="Pairs a step, over all processes together."),
]


def recipe_settings(overrides: list[str] | None, **given: object) -> list[str]:
    """What --set says, and behind it the options that stand for keys of a recipe."""
    keys = {"seed": "train.seed", "precision": "train.precision", "batch_size": "data.batch_size"}
    said = [f"{keys[name]}={value}" for name, value in given.items() if value is not None]
    return [*(overrides or []), *said]


def speaks() -> bool:
    """Whether this process is the one of a launcher's processes that speaks: the first."""
    return os.environ.get("RANK", "0") == "0"


def run_directory(output: Path | None, name: str, *, resume: bool, force: bool, dry_run: bool) -> Path:
    """Where the run goes. Raises UsageError, before anything is loaded, for a directory in use."""
    from vlcli.errors import UsageError
    from vlcli.training.run_directory import refuse_occupied

    if force and resume:
        raise UsageError("--force and --resume exclude each other")
    out = output or Path("runs") / name
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: not a directory")
    if speaks() and not dry_run:
        refuse_occupied(out, resume=resume, force=force)
    return out


def fate(out: Path, *, resume: bool, force: bool) -> str:
    """What would become of the run directory, for the plan."""
    from vlcli.training.run_directory import belongings

    if resume:
        return f"would go on in {out}"
    if not force and out.is_dir() and any(out.iterdir()):
        return f"{out} is not empty: needs --force"
    replaced = ", ".join(sorted(path.name for path in belongings(out)))
    return f"would replace {replaced} in {out}" if replaced else f"would write {out}"


def towers_of(path: str) -> tuple[str, ...]:
    """Which towers the checkpoint at a path can start: of `--init PATH`."""
    from vlcli.errors import UsageError
    from vlcli.models.quickcheck import kind_of

    kind = kind_of(path)
    found = {
        "dual": ("image", "text"),
        "r2d2": ("image", "text"),
        "text": ("text",),
        "image": ("image",),
    }.get(kind)
    if found is None:
        raise UsageError(f"--init {path}: a checkpoint of kind {kind!r} has no towers for this")
    return found


@contextmanager
def curves(run: Path, console: Console) -> Iterator[None]:
    """Draw the run's curves when it has ended, and when it was stopped: what there is of them is worth a look then."""
    try:
        yield
    finally:
        if speaks():
            from vlcli.errors import InputError, UsageError
            from vlcli.figures.curves import CURVES, write_curves
            from vlcli.figures.fonts import NoFont

            try:
                console.note(str(write_curves(run)), level=1)
            except (InputError, UsageError):
                pass  # it did not come to its first log line
            except (NoFont, OSError) as error:
                console.note(f"no {CURVES}: {error}")


class Progress:
    """A run on stderr: a live line on a terminal, a plain line now and then in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __enter__(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        self.bar = self.console.progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True),
        )
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _advance(self, name: str, done: int, total: int, values: str) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(name, total=total, values=values)
        self.bar.update(self.tasks[name], completed=done, total=total, values=values)
        if self.bar.disable:
            self.console.log(f"{name} {done}/{total} {values}", last=done == total)

    def about(self, plan: dict[str, Any], what: str) -> None:
        """The lines that every plan has, around what it is a run on."""
        note = self.console.note
        start = f", resumed at step {plan['resumed_at']}" if plan["resumed_at"] is not None else ""
        note(
            f"{plan['recipe']}: {what}, {plan['steps']} steps of {plan['batch_size']} on {plan['processes']}"
            f" process(es), peak lr {plan['peak_lr']:g}{start}"
        )
        for part, count in plan["parameters"].items():
            frozen = count["parameters"] - count["trainable"]
            note(f"  {part}: {count['trainable']:,} trainable, {frozen:,} frozen")
        for row in plan["decay"]:
            note(
                f"  {row['kind']}: {row['tensors']} tensors, {row['parameters']:,} parameters, decay {row['decay']:g}"
            )

    def saved(self, path: Path) -> None:
        self.console.note(f"saved {path}", level=1)

    def warn(self, text: str) -> None:
        self.console.warn(text)


def ended(console: Console, result: dict[str, Any], best: str, out: Path) -> None:
    """What a run came to. `best` names the score that chose: a percentage, or a loss, of which the engine has the
    negative."""
    value, said = result["best"], ""
    if value is not None:
        said = f", best {best} {-value:.4g}" if best == "loss" else f", best {best} {value:.1f}"
    console.note(f"{result['steps']} steps{said}; {out}")

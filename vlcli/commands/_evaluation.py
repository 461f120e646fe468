"""What the evaluation commands share: a model, progress, and how a result is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from vlcli.commands import _complete as complete
from vlcli.commands._console import Console

Run = Annotated[str, Argument(metavar="RUN", help="A run directory (its best checkpoint) or a checkpoint.")]
Bootstrap = Annotated[
    int, Option("--bootstrap", min=0, metavar="N", help="Resamples for the 95 % intervals; 0: none.")
]
Split = Annotated[
    str | None,
    Option("--split", metavar="NAME", help="Name of the split; default: the data's column of that name."),
]
Lang = Annotated[
    str | None,
    Option(
        "--lang",
        metavar="LANG",
        help="Language of the texts; default: the data's column, else told by their script.",
    ),
]

Cache = Annotated[
    str,
    Option(
        "--cache",
        metavar="auto|off|DIR",
        help="Where features are kept, for images and texts to be encoded once for each checkpoint: in $VLCLI_CACHE "
        "(20 GB at most), nowhere, or in DIR.",
    ),
]
CACHE_VARIABLE = (
    "VLCLI_CACHE",
    "Where features of checkpoints are kept, in the folder evaluation; default: $XDG_CACHE_HOME/vlcli.",
)


def prompts_option(default: str | None = None) -> Any:
    """--prompts; `default` is what to show where the default depends on other options."""
    return Option(
        "--prompts",
        metavar="wukong-80|parallel-20.LANG|none|FILE",
        help="Templates around a text; a file has one a line, with {}.",
        show_default=default or True,
        autocompletion=complete.prompts,
    )


Prompts = Annotated[str, prompts_option()]


def require_run(run: str) -> None:
    """Refuse what is no checkpoint before the seconds that torch's import takes."""
    from vlcli.models.quickcheck import find_checkpoint

    find_checkpoint(run)


def open_model(run: str, device: str, console: Console) -> Any:
    """The model of a run or checkpoint; `-v` says which that is."""
    import vlcli
    from vlcli.models.checkpoint import resolve_device
    from vlcli.models.quickcheck import find_checkpoint

    place = resolve_device(device)
    model = vlcli.load(run, device=str(place))
    console.note(f"{find_checkpoint(run)}: checkpoint {model.checkpoint_hash}, on {place}", level=1)
    return model


@contextmanager
def caching(cache: str, model: Any, precision: str, console: Console) -> Iterator[Any]:
    """The `FeatureCache` that --cache says, or None; at the end a note of what was found in it."""
    from vlcli.errors import UsageError
    from vlcli.evaluation.feature_cache import FeatureCache

    if cache == "off":
        yield None
        return
    directory = None if cache == "auto" else Path(cache)
    try:
        kept = FeatureCache(model, directory, precision=precision, say=console.warn)
    except UsageError as error:
        if directory is not None:
            raise
        console.warn(str(error))
        yield None
        return
    with kept:
        yield kept
    told = ", ".join(f"{kept.found[what]:,} of {asked:,} {what}s" for what, asked in kept.asked.items())
    if told:
        level = 0 if any(kept.found.values()) else 1
        console.note(f"features of {told} were in the cache {kept.folder}", level=level)


@contextmanager
def announcing(console: Console) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A progress bar for each thing that is announced."""
    with console.progress() as progress:

        def announce(what: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(what, total=total)
            return lambda done: progress.advance(task, done)

        yield announce


def show_picture(png: bytes, console: Console) -> None:
    """Draw a PNG in the terminal; one line where stderr is none."""
    if not console.is_terminal:
        console.note("--show draws on a terminal, and stderr is none")
        return
    from vlcli.commands._console import rich_console
    from vlcli.figures.terminal import half_blocks

    screen = rich_console(sys.stderr)
    screen.print(half_blocks(png, screen.width, 2 * (screen.height - 2)))


def draw(figure: Any, files: dict[str, Path], console: Console, *, force: bool) -> None:
    """Write a figure into `files`, and say so."""
    from vlcli.figures.write import write_figure

    for file in write_figure(figure, files, force=force):
        console.note(str(file))


def print_json(value: Any) -> None:
    """One JSON value and a newline on stdout."""
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


def cell(value: float | None, bounds: list[float] | None) -> str:
    """`48.2 [43.9, 52.4]`."""
    if value is None:
        return "–"
    return f"{value:.1f}" + (f" [{bounds[0]:.1f}, {bounds[1]:.1f}]" if bounds else "")


def title(result: dict[str, Any]) -> str:
    """What the numbers of a table were measured on and with."""
    return (
        f"{result['data']} · split {result['split']} · {result['lang']} · prompts {result['prompts']}"
        f" · {result['similarity']} · checkpoint {result['checkpoint']}"
    )

"""--dataset: the published files of a public set instead of a table of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlcli.commands import _complete as complete

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.datasets.table import Reading

Dataset = Annotated[
    str | None,
    Option(
        "--dataset",
        metavar="NAME",
        help="--data is a directory, or files, of this public set as it is published; 'vlcli dataset' lists them.",
        autocompletion=complete.datasets,
    ),
]


def read(
    name: str,
    data: Sequence[str],
    *,
    split: str | None = None,
    langs: Sequence[str] = (),
    task: str | None = None,
    image_root: Path | None = None,
    renames: Sequence[str] | None = None,
) -> Reading:
    """One split of the set that --dataset names. Raises UsageError for options that are about tables of pairs."""
    from vlcli.datasets.table import open_dataset
    from vlcli.errors import UsageError

    if renames:
        raise UsageError("--map renames columns: a --dataset has none")
    return open_dataset(name, data, split=split, langs=langs, task=task, image_root=image_root)


def require_one_language(reading: Reading, lang: str | None) -> None:
    """UsageError where a set of several languages is asked for none."""
    from vlcli.errors import UsageError

    langs = reading.dataset.langs
    if lang is None and len(langs) > 1:
        shown = ", ".join(langs[:6]) + (", …" if len(langs) > 6 else "")
        raise UsageError(
            f"--dataset {reading.dataset.name} is in {len(langs)} languages ({shown})",
            remedy="--lang one of them, or several with --langs",
        )


def load(reading: Reading, console: Console, *, head: int | None = None, **how: Any) -> Any:
    """The table of pairs, after a warning of what is not as it was published."""
    from vlcli.datasets.table import load_dataset

    table = load_dataset(reading, head=head, **how)
    warn(reading, console)
    if left := reading.left_out():
        does = "left out" if how.get("pairs_only") else "not asked for"
        console.note(f"{reading.dataset.name} {reading.split}: {', '.join(left)}: {does}", level=1)
    return table


def warn(reading: Reading, console: Console) -> None:
    """What is not as it was published."""
    for remark in reading.remarks():
        console.warn(remark)

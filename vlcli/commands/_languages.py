"""Options of a sweep over languages, and its table: a line for each, and their average [X Tables 1, 2 and 6]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console

PANEL = "Several languages"
Langs = Annotated[
    str | None,
    Option(
        "--langs",
        metavar="LANG,...",
        help="The numbers of each of these languages, and their average; {lang} in the name of a file, a column or "
        "a prompt set stands for the language. Images are encoded once.",
        rich_help_panel=PANEL,
        autocompletion=complete.words("en,zh,es,fr,ru,ar,ja,ko,it"),
    ),
]


def parse(langs: str, lang: str | None) -> tuple[str, ...]:
    """The languages of --langs. Raises UsageError where --lang is given, too."""
    from vlcli.errors import UsageError
    from vlcli.text.languages import parse_langs

    if lang is not None:
        raise UsageError("--lang names the one language of the texts: it does not go with --langs")
    return parse_langs(langs)


def files(pattern: Path | None, option: str, langs: Sequence[str], *, force: bool) -> dict[str, Path] | None:
    """The file of each language. Raises UsageError for a name that is the same for all, and for a file that exists."""
    from vlcli.errors import UsageError
    from vlcli.records.atomic import refuse_existing
    from vlcli.text.languages import SLOT, named, varies

    if pattern is None:
        return None
    if not varies(str(pattern)):
        raise UsageError(
            f"{option} {pattern}: every language needs a file of its own", remedy=f"put {SLOT} in it"
        )
    found = {lang: Path(named(str(pattern), lang)) for lang in langs}
    for file in found.values():
        if not force:
            refuse_existing(file)
    return found


def note_saving(result: dict[str, Any], console: Console) -> None:
    """What encoding images once has saved."""
    encoded, langs = result["encoded"], len(result["langs"])
    console.note(
        f"{encoded['images']:,} images encoded once for {langs} languages (one by one: "
        f"{encoded['images_one_by_one']:,}), and {encoded['texts']:,} texts"
    )


def show(
    result: dict[str, Any], said: dict[str, str], header: Sequence[str], cells: Sequence[Sequence[str]]
) -> None:
    """The table: `cells` are of each language and, last, of the average; `said` goes into the title as it was given."""
    from vlcli.commands._console import show_table

    langs = result["langs"]
    splits = list(dict.fromkeys(one["split"] for one in langs))
    counts = {one.get("images", one.get("n")) for one in langs}
    images = f", {counts.pop()} images" if len(counts) == 1 else ""
    head = {
        **langs[0],
        "lang": f"{len(langs)} languages{images}",
        "split": splits[0] if len(splits) == 1 else "of each",
        **said,
    }
    names = [*(one["lang"] for one in langs), "average"]
    show_table(e.title(head), list(header), [[name, *line] for name, line in zip(names, cells, strict=True)])

"""`retrieve --langs`: the same pictures, asked for in each of several languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e
from vlcli.commands import _languages as many

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.commands._results import Lines


def in_languages(
    run: str,
    tags: Sequence[str],
    load: Callable[[], dict[str, Any]],
    prompts: str,
    lines: Lines,
    console: Console,
    *,
    title: str,
    targets: Any,
    device: str,
    cache: str,
    how: dict[str, Any],
    encoding: dict[str, Any],
    as_json: bool,
    force: bool,
) -> None:
    """Measure every language and print them with their average. `load` reads a table a tag, `targets` are the files of
    predictions."""
    from vlcli.evaluation.languages import retrieve_in
    from vlcli.evaluation.results_file import settings_of
    from vlcli.text.languages import named
    from vlcli.text.prompts import load_prompts

    templates = {tag: load_prompts(named(prompts, tag)) for tag in tags}
    tables = load()
    model = e.open_model(run, device, console)

    def settings(tag: str) -> dict[str, Any]:
        known = {"prompts": templates[tag], "lang": tag, "precision": encoding["precision"], **how}
        known["pictures"] = lines.pictures(tables[tag])
        return settings_of(model, tables[tag], command="retrieve", **known)

    with e.announcing(console) as announce, e.caching(cache, model, encoding["precision"], console) as kept:
        result = lines.sweep(
            {tag: settings(tag) for tag in tables},
            lambda: retrieve_in(
                model,
                tables,
                templates,
                predictions=targets,
                force=force,
                announce=announce,
                cache=kept,
                **how,
                **encoding,
            ),
            anew=targets is not None,
        )
    if result["encoded"]["images"]:
        many.note_saving(result, console)
    if as_json:
        e.print_json(result)
    elif result["average"]["MR"] is None:
        console.note("nothing says which images the texts are of: the predictions are all")
    else:
        _show(result, title, prompts)


def _show(result: dict[str, Any], data: str, prompts: str) -> None:
    """A line for each language; the intervals of single recalls, and how many texts there are, are in the JSON."""
    sides = {side: shown for side, shown in (("i2t", "I→T"), ("t2i", "T→I")) if result["average"][side]}
    recalls = [(side, name) for side in sides for name in result["average"][side]]
    header = ["", *(f"{sides[side]}\n{name}" for side, name in recalls), "mean recall"]
    cells = [
        [*(e.cell(one[side][name], None) for side, name in recalls), e.cell(one["MR"], one["ci95"].get("MR"))]
        for one in (*result["langs"], result["average"])
    ]
    many.show(result, {"data": data, "prompts": prompts}, header, cells)

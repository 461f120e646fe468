"""vlcli visualize: which word lies on which patch, and how a run went."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vlcli.commands import _evaluation as e
from vlcli.commands import _options as o
from vlcli.errors import UsageError

EXAMPLES = (
    "vlcli visualize runs/lit-filip --image fox.png --text 狐狸 -o fox.figure.png",
    "vlcli visualize runs/lit-filip --image 'raw.parquet#12' --text 狐狸 --formats png,svg,json",
    "vlcli visualize runs/lit-filip --data val.jsonl --id fxemoji/1f98a -o fox.svg",
    "vlcli visualize runs/r2d2 --image fox.png --text 狐狸 --method entity -o fox.entity.png",
    "vlcli visualize fox.figure.json -o fox.figure.svg",
    "vlcli visualize runs/lit-filip --method curves",
)


class Method(StrEnum):
    """What a figure shows."""

    word_patch = "word-patch"
    entity = "entity"
    curves = "curves"


def command(
    run: e.Run,
    image: Annotated[
        list[str] | None,
        Option(
            "--image", metavar="PATH|REF", help="A picture, file.parquet#ROW or shard.tar#MEMBER; repeatable."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        Option(
            "--text", metavar="TEXT", help="The word to find; repeatable. With --id, default: the row's text."
        ),
    ] = None,
    data: o.DataOrNone = None,
    row_id: Annotated[
        list[str] | None, Option("--id", metavar="ID", help="A row of --data to draw; repeatable.")
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "-o",
            "--output",
            metavar="FILE",
            help="X.png, X.svg or X.json.",
            show_default="IMAGE.TEXT.png, RUN.curves.png",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        Option("--formats", metavar="png,svg,json", help="Several files beside each other, named after -o."),
    ] = None,
    prompt: Annotated[
        str,
        Option(
            "--prompt", metavar="TEMPLATE", help="Template around the word; the papers draw the bare word."
        ),
    ] = "{}",
    method: Annotated[
        Method,
        Option(
            "--method",
            help="Which word lies on which patch, of a token-wise model; where an R2D2 looks as it reads the text; or "
            "how a run went.",
        ),
    ] = Method.word_patch,
    layer: Annotated[
        int, Option("--layer", min=1, metavar="N", help="Of the cross encoder, from 1 (--method entity).")
    ] = 3,
    mosaic: Annotated[
        bool, Option("--mosaic", help="Lay four images out as one, two by two: does the word find its own?")
    ] = False,
    size: Annotated[
        int | None,
        Option(
            "--size",
            min=8,
            max=1024,
            metavar="PX",
            help="Side of the input, where the image tower takes any.",
        ),
    ] = None,
    image_root: o.ImageRoot = None,
    renames: o.Map = None,
    device: o.Device = "auto",
    json: o.Json = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Draw the word–patch alignment of a token-wise model, and the similarity map of the word beside it.

    In each patch stands the index of the text token that it matches best, special ones included: red
    where that is one of the word's, white elsewhere. The map shows the mean similarity of the word's
    tokens. --json prints the indices: grid, tokens, label positions, similarities. A figure has a glyph
    for every character or is not written.

    --method entity shows the same of an R2D2's attention: in each patch the token that looks at it most, and beside it
    how much the tokens of the text, the entity, look at each patch. --prompt sets the entity in a sentence.

    A figure's own JSON in place of RUN redraws it without the model, from the same pictures: to another
    format, or after its PNG is lost. A picture that has changed meanwhile is exit 3.

    --method curves draws loss, validation, temperature, learning rate and speed of a run from its metrics.jsonl, as
    pretrain does when a run ends: also of one that is still under way, to a PNG or SVG.
    """
    from vlcli.commands._console import Console

    if method is Method.curves:
        if image or text or data or row_id or mosaic or size or formats or json or prompt != "{}":
            raise UsageError("--method curves draws a run: of the options, -o and --force are for it")
        from vlcli.figures.curves import write_curves

        target = output or Path(f"{Path(run).resolve().name}.curves.png")
        write_curves(Path(run), target, force=force)
        Console("visualize", quiet=quiet, verbose=verbose).note(str(target))
        return
    if run.endswith(".json"):
        if text or mosaic or size or prompt != "{}":
            raise UsageError(
                "a redrawn figure has its own texts and size: --text, --prompt, --mosaic and --size are not for it"
            )
    else:
        e.require_run(run)
    from vlcli.figures.redraw import Figure
    from vlcli.figures.request import Request
    from vlcli.figures.sheet import check_texts
    from vlcli.records.atomic import atomic_file

    console = Console("visualize", quiet=quiet, verbose=verbose)
    pictures: dict[str, Any] = {
        "data": data or [],
        "ids": row_id or [],
        "renames": o.parse_map(renames),
        "image_root": image_root,
    }
    if run.endswith(".json"):
        figure = Figure.read(Path(run), image or [], **pictures)
        targets = figure.targets(output, formats, printed=json, force=force)
        sheet = figure.sheet()
    else:
        request = Request.read(image or [], text or [], **pictures)
        targets = request.targets(output, formats, printed=json, force=force)
        if any(kind != "json" for kind in targets):
            check_texts(request.texts, prompt)
        model = e.open_model(run, device, console)
        sheet = request.sheet(
            model,
            prompt=prompt,
            size=size,
            mosaic=mosaic,
            layer=layer if method is Method.entity else None,
        )
    for kind, content in sheet.render(list(targets)).items():
        with atomic_file(targets[kind], force=force) as file:
            file.write(content)
        console.note(str(targets[kind]))
    if json:
        e.print_json(sheet.as_json())

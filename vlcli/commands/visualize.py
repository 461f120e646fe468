"""vlcli visualize: where in a picture a model finds a word, and how a run went."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from vlcli.commands import _evaluation as e
from vlcli.commands import _options as o
from vlcli.errors import UsageError

EXAMPLES = (
    "vlcli visualize runs/lit-filip --image fox.png --text 狐狸 -o fox.figure.png",
    "vlcli visualize runs/lit-filip --image 'raw.parquet#12' --text 狐狸 --formats png,svg,html,json",
    "vlcli visualize runs/lit-filip --data val.jsonl --id fxemoji/1f98a -o fox.svg",
    "vlcli visualize runs/lit-clip --image fox.png --text 狐狸 --method gradcam -o fox.gradcam.png",
    "vlcli visualize runs/lit-filip --image fox.png --text 一只狐狸 --by-token -o fox.tokens.png",
    "vlcli visualize runs/lit-filip --against runs/lit-clip --image fox.png --text 狐狸 --method gradcam -o two.png",
    "vlcli visualize runs/lit-filip --data val.jsonl --head 40 -o sheet.html",
    "vlcli visualize runs/lit-filip --method map --data val.jsonl -o map.parquet",
    "vlcli visualize runs/r2d2 --image fox.png --text 狐狸 --method entity -o fox.entity.png",
    "vlcli visualize fox.figure.json -o fox.figure.svg",
    "vlcli visualize runs/lit-filip --method curves",
)


class Method(StrEnum):
    """What a figure shows."""

    word_patch = "word-patch"
    gradcam = "gradcam"
    attention = "attention"
    entity = "entity"
    map = "map"
    curves = "curves"


def command(
    run: e.Run,
    image: Annotated[
        list[str] | None,
        Option(
            "--image",
            metavar="PATH|REF|DIR",
            help="A picture, file.parquet#ROW or shard.tar#MEMBER, or a folder of pictures; repeatable.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        Option(
            "--text",
            metavar="TEXT",
            help="The word to find; repeatable. With --data, default: the row's text.",
        ),
    ] = None,
    data: o.DataOrNone = None,
    row_id: Annotated[
        list[str] | None, Option("--id", metavar="ID", help="A row of --data to draw; repeatable.")
    ] = None,
    head: o.Head = None,
    output: Annotated[
        Path | None,
        Option(
            "-o",
            "--output",
            metavar="FILE",
            help="X.png, X.svg, X.html or X.json.",
            show_default="IMAGE.TEXT.png, RUN.curves.png",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        Option(
            "--formats",
            metavar="png,svg,html,json",
            help="Several files beside each other, named after -o.",
        ),
    ] = None,
    show: Annotated[
        bool, Option("--show", help="Draw the figure in the terminal, too, where stderr is one.")
    ] = False,
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
            help="Which word lies on which patch, of a token-wise model; Grad-CAM, of any; self-attention of the "
            "word's patches (FILIP's figure); where an R2D2 looks as it reads the text; a map of "
            "--data by the pictures' vectors; or how a run went.",
        ),
    ] = Method.word_patch,
    layer: Annotated[
        int | None,
        Option(
            "--layer",
            min=1,
            metavar="N",
            help="From 1: of the cross encoder (entity), of the image tower (gradcam, attention).",
            show_default="entity: 3, or the last of fewer; else the last",
        ),
    ] = None,
    grad: Annotated[
        bool,
        Option(
            "--grad/--no-grad", help="Attention weighted by its gradient, or as it is (--method attention)."
        ),
    ] = True,
    by_token: Annotated[
        bool, Option("--by-token", help="A map of each of the word's tokens, too, after their mean.")
    ] = False,
    against: Annotated[
        list[str] | None,
        Option("--against", metavar="RUN", help="A further model, drawn beside the first; repeatable."),
    ] = None,
    projection: Annotated[
        Literal["pca", "tsne"], Option("--projection", help="Of --method map to two dimensions.")
    ] = "pca",
    seed: o.Seed = 0,
    layout: Annotated[
        Literal["rows", "sheet"] | None,
        Option(
            "--layout",
            help="Large panels one below the other (HTML: a page each), or a contact sheet.",
            show_default="sheet for --data without --id, or more than 64",
        ),
    ] = None,
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
    """Draw where in a picture a model finds a word: word–patch alignment, Grad-CAM, attention.

    Word-patch: in each patch stands the index of the text token that it matches best, special ones included: red
    where that is one of the word's, white elsewhere. The map shows the mean similarity of the word's
    tokens. --json prints the numbers: grid, tokens, label positions, similarities. A figure has a glyph
    for every character or is not written.

    --method gradcam explains the similarity of picture and text, of models of every kind: how much what a layer of
    the image tower sees in each place raises it. s is that similarity; each map runs from 0 to 1. --method
    attention is FILIP's figure: the self-attention of the patches that choose one of the word's tokens.

    --method entity shows of an R2D2's attention in each patch the token that looks at it most, and beside it
    how much the tokens of the text, the entity, look at each patch. --prompt sets the entity in a sentence.

    A folder, or --data without --id, becomes a contact sheet. X.html is one file that needs no network: arrow keys
    turn its pages, and the JSON and the pictures are inside.

    A figure's own JSON or HTML in place of RUN redraws it without the model, from the same pictures: to another
    format, or after its PNG is lost. A picture that has changed meanwhile is exit 3.

    --method map writes where the pictures of --data stand by their vectors, in two dimensions: a PNG, or a Parquet
    with x, y, text and image, which embedding-atlas opens. It looks at no text.

    --method curves draws loss, validation, temperature, learning rate and speed of a run from its metrics.jsonl, as
    pretrain does when a run ends: also of one that is still under way, to a PNG or SVG.
    """
    from vlcli.commands._console import Console

    again = run.lower().endswith((".json", ".html"))
    _refuse(method, layer, again=again, grad=grad, by_token=by_token)
    if method is Method.curves:
        if image or text or data or row_id or head or mosaic or size or formats or json or prompt != "{}":
            raise UsageError("--method curves draws a run: of the options, -o and --force are for it")
        if against or layout or show:
            raise UsageError("--method curves draws one run, to a file")
        from vlcli.figures.curves import write_curves

        target = output or Path(f"{Path(run).resolve().name}.curves.png")
        write_curves(Path(run), target, force=force)
        Console("visualize", quiet=quiet, verbose=verbose).note(str(target))
        return
    if method is Method.map:
        if image or text or row_id or mosaic or size or prompt != "{}" or against or layout:
            raise UsageError(
                "--method map lays out the rows of --data: --head, -o, --formats, --projection are for it"
            )
        if not data:
            raise UsageError("--method map needs --data")
        e.require_run(run)
        _draw_map(
            run, data, projection, seed, head, output, formats, device,
            show=show, json=json, force=force, console=Console("visualize", quiet=quiet, verbose=verbose),
            reading={"renames": o.parse_map(renames), "image_root": image_root},
        )  # fmt: skip
        return
    if again:
        if text or mosaic or size or prompt != "{}":
            raise UsageError(
                "a redrawn figure has its own texts and size: --text, --prompt, --mosaic and --size are not for it"
            )
        if against or layout or head is not None:
            raise UsageError("a redrawn figure has its own models, rows and layout")
    else:
        for one in (run, *(against or [])):
            e.require_run(one)
    from vlcli.figures.redraw import Figure
    from vlcli.figures.request import Request
    from vlcli.figures.sheet import Question, check_texts

    console = Console("visualize", quiet=quiet, verbose=verbose)
    pictures: dict[str, Any] = {
        "data": data or [],
        "ids": row_id or [],
        "renames": o.parse_map(renames),
        "image_root": image_root,
    }
    if again:
        figure = Figure.read(Path(run), image or [], **pictures)
        targets = figure.targets(output, formats, printed=json or show, force=force)
        sheet = figure.sheet()
    else:
        request = Request.read(image or [], text or [], head=head, **pictures)
        targets = request.targets(output, formats, printed=json or show, force=force)
        if any(kind != "json" for kind in targets):
            check_texts(request.texts, prompt)
        model = e.open_model(run, device, console)
        sheet = request.sheet(
            model,
            question=Question(method.value, layer, prompt, by_token, grad),
            size=size,
            mosaic=mosaic,
            layout=layout or ("sheet" if request.many else "rows"),
            name=Path(run).name,
            against=[(Path(one).name, e.open_model(one, device, console)) for one in against or []],
        )
    _hand_out(sheet, targets, console, show=show, json=json, force=force)


def _draw_map(
    run: str,
    data: list[str],
    projection: Literal["pca", "tsne"],
    seed: int,
    head: int | None,
    output: Path | None,
    formats: str | None,
    device: str,
    *,
    show: bool,
    json: bool,
    force: bool,
    console: Any,
    reading: dict[str, Any],
) -> None:
    """--method map."""
    from vlcli.figures.embedding_map import KINDS, make_map
    from vlcli.figures.request import file_names
    from vlcli.shards.pairs import load_pairs

    name = f"{Path(run).resolve().name}.map"
    targets = file_names(output, formats, name, printed=json or show, force=force, known=KINDS)
    table = load_pairs(data, head=head, need_text=False, **reading)
    model = e.open_model(run, device, console)
    with e.announcing(console) as announce:
        found = make_map(model, table, projection, seed=seed, progress=announce("images", len(table)))
    _hand_out(found, targets, console, show=show, json=json, force=force)


def _hand_out(
    figure: Any, targets: dict[str, Path], console: Any, *, show: bool, json: bool, force: bool
) -> None:
    """To its files, to the terminal, to stdout."""
    from vlcli.figures.write import write_figure

    for file in write_figure(figure, targets, force=force):
        console.note(str(file))
    if show:
        e.show_picture(figure.render(["png"])["png"], console)
    if json:
        e.print_json(figure.as_json())


def _refuse(method: Method, layer: int | None, *, again: bool, grad: bool, by_token: bool) -> None:
    """UsageError for options that are not for this method."""
    if not grad and method is not Method.attention:
        raise UsageError("--no-grad is about --method attention")
    if layer is not None and method in (Method.word_patch, Method.map, Method.curves):
        raise UsageError(f"--layer is not for --method {method.value}")
    if by_token and method in (Method.attention, Method.map, Method.curves):
        raise UsageError(f"--by-token is not for --method {method.value}")
    if again and (method is not Method.word_patch or by_token):
        raise UsageError("a redrawn figure has its own method and maps")

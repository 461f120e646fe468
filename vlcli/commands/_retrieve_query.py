"""What `retrieve` is asked for instead of metrics: its options, one search, what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.evaluation.search import Query

PANEL = "Search"

Text = Annotated[
    str | None,
    Option(
        "--query",
        metavar="TEXT",
        help="Rank the images for this text, a JSON line each when piped or with --json; no metrics.",
        rich_help_panel=PANEL,
    ),
]
Image = Annotated[
    str | None,
    Option(
        "--query-image",
        metavar="PATH|REF",
        help="Rank the images for this picture, file.parquet#ROW or shard.tar#MEMBER; with --query, --plus or --minus "
        "for it and them together.",
        rich_help_panel=PANEL,
    ),
]
Plus = Annotated[
    str | None,
    Option(
        "--plus",
        metavar="TEXT",
        help="Add this text to the query; one vector is image-scale · image + text-scale · text.",
        rich_help_panel=PANEL,
    ),
]
Minus = Annotated[
    str | None,
    Option("--minus", metavar="TEXT", help="Take this text from the query.", rich_help_panel=PANEL),
]
TextScale = Annotated[
    float | None,
    Option(
        "--text-scale",
        min=0.001,
        metavar="X",
        help="Weight of the texts.",
        show_default="2 of what is added to a picture, else 1",
        rich_help_panel=PANEL,
    ),
]
ImageScale = Annotated[
    float,
    Option("--image-scale", min=0.001, metavar="X", help="Weight of --query-image.", rich_help_panel=PANEL),
]
Top = Annotated[int, Option("--top", min=1, metavar="K", help="Results of a search.", rich_help_panel=PANEL)]
Index = Annotated[
    Path | None,
    Option(
        "--index",
        metavar="DIR|FILE.index",
        help="Search this directory of 'vlcli embed' instead of --data, or the faiss index in it; no image is encoded.",
        rich_help_panel=PANEL,
    ),
]
Texts = Annotated[
    bool,
    Option(
        "--best-texts",
        help="Rank the texts of --data for --query-image, with their softmax percentages.",
        rich_help_panel=PANEL,
    ),
]


def parse(
    text: str | None,
    image: str | None,
    plus: str | None,
    minus: str | None,
    text_scale: float | None,
    image_scale: float,
) -> Query | None:
    """The query that the options are, None where they are none. Raises UsageError, InputError for no picture."""
    from vlcli.errors import UsageError

    if image_scale != 1 and image is None:
        raise UsageError("--image-scale is the weight of --query-image, which is not given")
    if text_scale is not None and plus is None and minus is None and (text is None or image is None):
        raise UsageError("--text-scale weighs texts against something: give --plus, --minus or both queries")
    if text is None and image is None and plus is None and minus is None:
        return None
    from vlcli.evaluation.search import Query

    return Query(
        text,
        None if image is None else _picture(image),
        image or "",
        plus,
        minus,
        text_scale,
        image_scale,
    )


def _picture(reference: str) -> bytes:
    from vlcli.errors import InputError
    from vlcli.images.decode import decode
    from vlcli.images.named import named_picture
    from vlcli.images.resolve import ImageReader

    with ImageReader(None) as reader:
        content = named_picture(reference, reader)
    try:
        decode(content)
    except ValueError as error:
        raise InputError(f"no picture: {error}", file=reference) from None
    return content


def refuse(query: Query, others: dict[str, Any]) -> None:
    """UsageError for an option that is about metrics."""
    from vlcli.errors import UsageError

    own = "--query" if query.picture is None else "--query-image"
    for flag, value in others.items():
        if value is not None:
            raise UsageError(f"{own} has no metrics: it does not go with {flag}")


def refuse_with_index(query: Query | None, others: dict[str, Any]) -> None:
    """UsageError for an index without a query, and for options about pairs."""
    from vlcli.errors import UsageError

    if query is None:
        raise UsageError(
            "--index is searched, and there is no query", remedy="--query TEXT or --query-image FILE"
        )
    for flag, value in others.items():
        if value:
            raise UsageError(f"--index has vectors of its own: it does not go with {flag}")


def refuse_preselection(query: Query | None, others: dict[str, Any]) -> None:
    """UsageError where no exact similarity follows the choice of candidates."""
    from vlcli.errors import UsageError

    if query is not None and not query.is_text:
        raise UsageError(
            "--preselect is of a text's similarity: a picture or a sum is ranked by vectors anyway"
        )
    for flag, value in others.items():
        if value is not None:
            raise UsageError(f"--preselect does not go with {flag}")


def run_index(
    query: Query,
    index: Path,
    model: Any,
    prompts: str,
    top: int,
    *,
    preselect: int | None,
    image_root: Path | None,
    as_json: bool,
    **encoding: Any,
) -> None:
    """Search a directory of embeddings, and print."""
    from vlcli.evaluation.tasks import require_one
    from vlcli.evaluation.vector_index import VectorIndex
    from vlcli.text.prompts import load_prompts

    template = load_prompts(prompts)
    require_one(template)
    found = VectorIndex(index, model).search(
        query, template, top, preselect=preselect, image_root=image_root, **encoding
    )
    show(query, found, model.checkpoint_hash, as_json=as_json)


def run_texts(query: Query, pool: Any, top: int, *, as_json: bool) -> None:
    """The likeliest texts of a picture, and print."""
    import sys

    from vlcli.commands._console import show_table
    from vlcli.errors import UsageError
    from vlcli.evaluation.text_odds import text_odds

    if query.picture is None or query.texts:
        raise UsageError("--best-texts ranks the texts for a picture alone", remedy="--query-image FILE")
    found = text_odds(pool, query.picture, top)
    if as_json or not sys.stdout.isatty():
        for row in found:
            e.print_json(row)
        return
    marks = {True: "✓", False: "", None: ""}
    rows = [
        [str(one["rank"]), f"{one['percent']:.2f} %", one["text"], marks[one.get("right")]] for one in found
    ]
    show_table(f"{query.title} · checkpoint {pool.model.checkpoint_hash}", ["", "softmax", "text", ""], rows)


def show(query: Query, found: list[dict[str, Any]], checkpoint: str, *, as_json: bool) -> None:
    """The rows as JSON lines, on a terminal as a table."""
    import sys

    from vlcli.commands._console import show_table

    if as_json or not sys.stdout.isatty():
        for row in found:
            e.print_json(row)
        return
    rows = [
        [str(one["rank"]), f"{one['score']:.4f}", one.get("id") or "", " / ".join(one["text"])]
        for one in found
    ]
    show_table(f"{query.title} · checkpoint {checkpoint}", ["", "score", "id", "text"], rows)


def run(
    query: Query,
    pool: Any,
    top: int,
    drawn: dict[str, Path],
    console: Console,
    *,
    preselect: int | None,
    as_json: bool,
    force: bool,
) -> None:
    """Search the gallery, draw what --gallery names, and print."""
    from vlcli.evaluation.search import search

    found = search(pool, query, top, preselect=preselect)
    if drawn:
        from vlcli.figures.gallery import search_gallery

        e.draw(search_gallery(pool, query, found), drawn, console, force=force)
    show(query, found, pool.model.checkpoint_hash, as_json=as_json)

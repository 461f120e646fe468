"""From pictures and texts to a sheet of alignments, and the sheet to PNG, SVG, HTML or the JSON of its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.alignment import Alignment, align, encode_label, encode_patches, require_tokens
from vlcli.evaluation.entity import attend, encode_entity, layer_of
from vlcli.evaluation.gradcam import attention_cam, check_layer, gradcam
from vlcli.evaluation.mosaics import CELLS, assemble
from vlcli.figures.alignment import LAYOUTS, Row, draw
from vlcli.figures.alignment_html import sections
from vlcli.figures.canvas import FORMATS, render
from vlcli.figures.cells import draw_cells
from vlcli.figures.fonts import find_fonts
from vlcli.figures.html import as_json, page
from vlcli.images.config import PreprocessConfig
from vlcli.images.decode import decode
from vlcli.images.preprocess import Preprocess

KINDS = (*FORMATS, "html", "json")
MAX_ROWS = {"rows": 64, "sheet": 400}
SHOWN = 384  # pixels a picture is shown with, at least
TITLES = {
    None: "Words on patches",
    "gradcam": "Grad-CAM",
    "attention": "Self-attention of the words' patches",
}


@dataclass(frozen=True)
class Source:
    """A picture's reference and its bytes as they lie on the disk; `text`, in the language `lang`, is its own."""

    reference: str
    data: bytes
    text: str | None = None
    lang: str | None = None

    def picture(self) -> Image.Image:
        try:
            return decode(self.data)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error), file=self.reference) from error


@dataclass(frozen=True)
class Sheet:
    """Rows to draw, and beside each what names its picture; `head` names the models. `originals` are the pictures'
    own bytes by sha256: an HTML file carries them."""

    rows: list[Row]
    pictures: list[dict[str, Any]]
    head: dict[str, Any]
    originals: dict[str, bytes] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        return str(self.head.get("layout", LAYOUTS[0]))

    def as_json(self) -> dict[str, Any]:
        """Every index and similarity that the figure shows."""
        figures = [
            {**picture, **row.alignment.as_json()}
            for picture, row in zip(self.pictures, self.rows, strict=True)
        ]
        return {**self.head, "figures": figures}

    def render(self, kinds: Sequence[str]) -> dict[str, bytes]:
        """The sheet as each of `kinds` ("png", "svg", "html", "json"), equal bytes for equal inputs.

        What is drawn are the numbers of the JSON, rounded as they stand there: see `redraw`.
        """
        rows = [
            Row(r.pixels, Alignment.of_json(r.alignment.as_json()), r.caption, r.model, r.name, r.lang)
            for r in self.rows
        ]
        drawn = None
        if set(kinds) & set(FORMATS):
            drawn = draw_cells(rows) if self.layout == "sheet" else draw(rows)
        done = {}
        for kind in kinds:
            if kind == "json":
                done[kind] = as_json(self.as_json())
            elif kind == "html":
                done[kind] = self._html(rows)
            else:
                assert drawn is not None
                done[kind] = render(drawn, kind)
        return done

    def _html(self, rows: list[Row]) -> bytes:
        parts, texts = sections(rows, layout=self.layout)
        method, layer = rows[0].alignment.method, rows[0].alignment.layer
        title = (
            "Attention of the cross encoder"
            if method is None and layer
            else TITLES.get(method, TITLES["attention"])
        )
        about = [
            " · ".join(part for part in (model.get("name"), model["similarity"], model["checkpoint"]) if part)
            for model in self.head.get("models", [self.head])
        ]
        layout = "sheet" if self.layout == "sheet" else "pages"
        return page(
            title,
            parts,
            texts,
            as_json(self.as_json()),
            self.originals,
            layout=layout,
            under="; ".join(about),
        )


@dataclass(frozen=True)
class Question:
    """What is drawn of a model: the method, its layer, the template around a text, and the maps that are wanted."""

    method: str = "word-patch"  # or entity, gradcam, attention
    layer: int | None = None
    prompt: str = "{}"
    by_token: bool = False
    weighted: bool = True  # of attention: by its gradient

    def require(self, model: Any) -> None:
        """UsageError for a model that has no such map."""
        if self.method == "word-patch":
            require_tokens(model)
        elif self.method == "entity":
            layer_of(model, self.layer)
        else:
            check_layer(model, self.layer)

    def reader(self, model: Any) -> Callable[[Any, Sequence[str]], list[Alignment]]:
        """A function from pixels (1, 3, H, W) and texts to what is found of each. Texts are encoded once."""
        encode: Any = encode_entity if self.method == "entity" else encode_label
        known: dict[str, Any] = {}

        def read(pixels: Any, texts: Sequence[str]) -> list[Alignment]:
            for text in texts:
                if text not in known:
                    known[text] = encode(model, text, self.prompt)
            return self._ask(model, pixels, [known[text] for text in texts])

        return read

    def _ask(self, model: Any, pixels: Any, labels: list[Any]) -> list[Alignment]:
        if self.method == "entity":
            layer = layer_of(model, self.layer)
            return [attend(model, pixels, entity, layer, by_token=self.by_token) for entity in labels]
        if self.method == "gradcam":
            return gradcam(model, pixels, labels, self.layer, by_token=self.by_token)
        if self.method == "attention":
            return attention_cam(model, pixels, labels, self.layer, weighted=self.weighted)
        patches, grid = encode_patches(model, pixels)
        return [align(patches[0], label, grid, by_token=self.by_token) for label in labels]


def make_sheet(
    model: Any,
    sources: Sequence[Source],
    texts: Sequence[str],
    *,
    question: Question | None = None,
    size: int | None = None,
    mosaic: bool = False,
    layout: str = "rows",
    name: str = "",
    against: Sequence[tuple[str, Any]] = (),
) -> Sheet:
    """Rows for every picture and text, or, without `texts`, for every picture and its own text. With `mosaic` the four
    pictures are one, two by two; `against` are further models with their names, drawn beside the first.

    `size` is the side of the square the tower reads, default the model's own (twice that for a mosaic, if the
    tower takes it). Raises UsageError for a model that has no such map, for a text that is not in the model's
    reach, and for a size that the tower refuses; InputError for a picture that does not decode.
    """
    question = question or Question()
    models = [(name if against else "", model), *against]
    for _, one in models:
        question.require(one)
    if mosaic and len(sources) != CELLS:
        raise UsageError(f"a mosaic is made of {CELLS} images, not {len(sources)}")
    asked = [([s], [s.text] if not texts and s.text is not None else list(texts)) for s in sources]
    if mosaic:
        asked = [(list(sources), list(texts))]
    count, most = sum(len(wanted) for _, wanted in asked), MAX_ROWS[layout]
    if not 1 <= count <= most:
        remedy = "a contact sheet holds more: --layout sheet" if layout == "rows" and count else ""
        raise UsageError(f"{count} rows: a figure has 1 to {most}", remedy=remedy)
    readers = [question.reader(one) for _, one in models]
    rows: list[Row] = []
    named: list[dict[str, Any]] = []
    originals: dict[str, bytes] = {}
    for group, wanted in asked:
        pictures = [source.picture() for source in group]
        digests = [hashlib.sha256(source.data).hexdigest() for source in group]
        originals |= dict(zip(digests, (source.data for source in group), strict=True))
        about: dict[str, Any] = {"image": [s.reference for s in group], "image_sha256": digests}
        if not mosaic:
            about = {key: value[0] for key, value in about.items()}
        if group[0].lang and not mosaic:
            about["lang"] = group[0].lang
        seen = []
        for (_, one), read in zip(models, readers, strict=True):
            side, found = _read(one, pictures, size, lambda pixels, read=read: read(pixels, wanted))  # type: ignore[misc]  # noqa: B023
            seen.append((side, found, shown(one.config.image.preprocess, pictures, side)))
        for place in range(len(wanted)):
            for k, (side, found, pixels) in enumerate(seen):
                rows.append(Row(pixels, found[place], model=k, name=models[k][0], lang=about.get("lang")))
                named.append({**about, "size": side, **({"model": k} if k else {})})
    heads = [_head(one, title) for title, one in models]
    head = {"models": heads} if against else heads[0]
    return Sheet(rows, named, head | ({"layout": layout} if layout != LAYOUTS[0] else {}), originals)


def _head(model: Any, name: str) -> dict[str, Any]:
    preprocess = model.config.image.preprocess
    return {
        **({"name": name} if name else {}),
        "checkpoint": model.checkpoint_hash,
        "similarity": model.similarity_kind,
        "shown": {"fit": preprocess.fit, "interpolation": preprocess.interpolation},
    }


def _read(
    model: Any, pictures: list[Image.Image], size: int | None, read: Callable[[Any], list[Alignment]]
) -> tuple[int, list[Alignment]]:
    """Side of the input, and what is found of each text: in one picture, or in four as a mosaic."""
    own = model.image_size
    if size is None and len(pictures) == CELLS:
        try:
            return _read(model, pictures, 2 * own, read)
        except UsageError:
            size = own
    side = size or own
    if len(pictures) == CELLS:
        pixels = assemble([model.preprocess_image(picture, side // 2) for picture in pictures])
    else:
        pixels = model.preprocess_image(pictures[0], side)
    try:
        return side, read(pixels[None])
    except (AssertionError, RuntimeError) as error:
        if side == own:
            raise
        raise UsageError(
            f"the image tower does not read {side} px", remedy=f"it was trained at {own} px"
        ) from error


def shown(config: PreprocessConfig, pictures: list[Image.Image], side: int) -> Any:
    """What a model that reads `side` pixels saw, (s, s, 3) uint8: the same cut of each picture, with at least SHOWN
    pixels to look at."""
    side = max(SHOWN, side)
    side = side // 2 if len(pictures) == CELLS else side
    resize = Preprocess(config, size=side).resize
    parts = [np.asarray(resize(picture)) for picture in pictures]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.concatenate(parts[:2], 1), np.concatenate(parts[2:], 1)], 0)


def check_texts(texts: Sequence[str], prompt: str = "{}") -> None:
    """NoFont before anything heavy is done, when a figure of these texts could not be drawn."""
    find_fonts().require([*texts, prompt])

"""From pictures and texts to a sheet of alignments, and the sheet to PNG, SVG or the JSON of its indices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from PIL import Image

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.alignment import Alignment, Text, align, encode_label, encode_patches, require_tokens
from vlcli.evaluation.entity import Entity, attend, encode_entity, require_ranking
from vlcli.evaluation.mosaics import CELLS, assemble
from vlcli.figures.alignment import Row, draw
from vlcli.figures.canvas import FORMATS, render
from vlcli.figures.fonts import find_fonts
from vlcli.images.config import PreprocessConfig
from vlcli.images.decode import decode
from vlcli.images.preprocess import Preprocess

KINDS = (*FORMATS, "json")
MAX_ROWS = 64
SHOWN = 384  # pixels a picture is shown with, at least


@dataclass(frozen=True)
class Source:
    """A picture's reference and its bytes as they lie on the disk."""

    reference: str
    data: bytes

    def picture(self) -> Image.Image:
        try:
            return decode(self.data)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error), file=self.reference) from error


@dataclass(frozen=True)
class Sheet:
    """Rows to draw, and beside each what names its picture; `head` names the model."""

    rows: list[Row]
    pictures: list[dict[str, Any]]
    head: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Every index and similarity that the figure shows."""
        figures = [
            {**picture, **row.alignment.as_json()}
            for picture, row in zip(self.pictures, self.rows, strict=True)
        ]
        return {**self.head, "figures": figures}

    def render(self, kinds: Sequence[str]) -> dict[str, bytes]:
        """The sheet as each of `kinds` ("png", "svg", "json"), equal bytes for equal inputs.

        What is drawn are the numbers of the JSON, rounded as they stand there: see `redraw`.
        """
        rows = [Row(row.pixels, Alignment.of_json(row.alignment.as_json()), row.caption) for row in self.rows]
        drawn = draw(rows) if set(kinds) & set(FORMATS) else None
        done = {}
        for kind in kinds:
            if kind == "json":
                done[kind] = (_readable(self.as_json()) + "\n").encode()
            else:
                assert drawn is not None
                done[kind] = render(drawn, kind)
        return done


def make_sheet(
    model: Any,
    sources: Sequence[Source],
    texts: Sequence[str],
    *,
    prompt: str = "{}",
    size: int | None = None,
    mosaic: bool = False,
    layer: int | None = None,
) -> Sheet:
    """One row for every picture and text. With `mosaic` the four pictures are one, two by two.

    With `layer` it shows the cross-attention of that layer of an R2D2 (entity.py) instead of an alignment. `size` is
    the side of the square the tower reads, default the model's own (twice that for a mosaic, if the
    tower takes it). Raises UsageError for a model without patch tokens, for a text that is not in the model's
    reach, and for a size that the tower refuses; InputError for a picture that does not decode.
    """
    if layer is None:
        require_tokens(model)
    else:
        require_ranking(model, layer)
    if mosaic and len(sources) != CELLS:
        raise UsageError(f"a mosaic is made of {CELLS} images, not {len(sources)}")
    count = (1 if mosaic else len(sources)) * len(texts)
    if not 1 <= count <= MAX_ROWS:
        raise UsageError(f"{count} rows: a figure has 1 to {MAX_ROWS}")
    labels = [encode_label(model, text, prompt) for text in texts] if layer is None else []
    entities = [encode_entity(model, text, prompt) for text in texts] if layer is not None else []
    rows: list[Row] = []
    named: list[dict[str, Any]] = []
    for group in [list(sources)] if mosaic else [[source] for source in sources]:
        pictures = [source.picture() for source in group]
        side, found = _read(model, pictures, size, labels, entities, layer)
        pixels = shown(model.config.image.preprocess, pictures, side)
        name: dict[str, Any] = {
            "image": [source.reference for source in group],
            "image_sha256": [hashlib.sha256(source.data).hexdigest() for source in group],
        }
        if not mosaic:
            name = {key: value[0] for key, value in name.items()}
        for one in found:
            rows.append(Row(pixels, one))
            named.append({**name, "size": side})
    preprocess = model.config.image.preprocess
    head = {
        "checkpoint": model.checkpoint_hash,
        "similarity": model.similarity_kind,
        "shown": {"fit": preprocess.fit, "interpolation": preprocess.interpolation},
    }
    return Sheet(rows, named, head)


def _read(
    model: Any,
    pictures: list[Image.Image],
    size: int | None,
    labels: Sequence[Text],
    entities: Sequence[Entity],
    layer: int | None,
) -> tuple[int, list[Alignment]]:
    """Side of the input, and what is found of each text: in one picture, or in four as a mosaic."""
    own = model.image_size
    if size is None and len(pictures) == CELLS:
        try:
            return _read(model, pictures, 2 * own, labels, entities, layer)
        except UsageError:
            size = own
    side = size or own
    if len(pictures) == CELLS:
        pixels = assemble([model.preprocess_image(picture, side // 2) for picture in pictures])
    else:
        pixels = model.preprocess_image(pictures[0], side)
    try:
        if layer is not None:
            return side, [attend(model, pixels[None], entity, layer) for entity in entities]
        patches, grid = encode_patches(model, pixels[None])
    except (AssertionError, RuntimeError) as error:
        raise UsageError(
            f"the image tower does not read {side} px", remedy=f"it was trained at {own} px"
        ) from error
    return side, [align(patches[0], label, grid) for label in labels]


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


def _readable(value: Any, indent: int = 0) -> str:
    """Indented JSON in which a list of plain values, such as a row of a grid, stays on one line."""
    inner = "  " * (indent + 1)
    if isinstance(value, dict) and value:
        items = [f"{inner}{_plain(key)}: {_readable(v, indent + 1)}" for key, v in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + inner[2:] + "}"
    if isinstance(value, list) and any(isinstance(v, list | dict) for v in value):
        items = [inner + _readable(v, indent + 1) for v in value]
        return "[\n" + ",\n".join(items) + "\n" + inner[2:] + "]"
    return _plain(value)


def _plain(value: Any) -> str:
    return orjson.dumps(value).decode()


def check_texts(texts: Sequence[str], prompt: str = "{}") -> None:
    """NoFont before anything heavy is done, when a figure of these texts could not be drawn."""
    find_fonts().require([*texts, prompt])

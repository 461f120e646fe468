"""Rows with what a captioner says of their pictures: as further columns, or as COCO's list of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import polars as pl
import torch

from vlcli.errors import InputError
from vlcli.evaluation.embed import inference
from vlcli.generation.captions import Caption, Decoding, captions
from vlcli.images.decode import decode
from vlcli.images.resolve import ImageReader
from vlcli.models.captioner import Captioner
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.encode import portable_rows
from vlcli.records.identity import Identity
from vlcli.records.references import Relocator

CAPTION, SCORE = "caption_generated", "score"


def captioned(
    model: Captioner,
    batches: Iterable[Batch],
    reader: ImageReader,
    decoding: Decoding,
    bad: BadRows,
    *,
    each_image_once: bool = False,
    batch_size: int = 64,
    precision: str = "fp32",
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Iterator[Batch]:
    """The rows of `batches`, `batch_size` at a time, with a caption and its score each, and with ids.

    A row whose picture cannot be had goes to `bad`, which is judged at the end, and is left out. `each_image_once`:
    rows of an image that came before are left out; 8 bytes an image stay in memory.
    """
    number, shown = 0, set[int]()
    with Identity() as identity:
        for batch in batches:
            for start in range(0, len(batch), batch_size):
                part = identity.assign(batch.slice(start, batch_size))
                numbers, count = range(number, number + len(part)), len(part)
                number += count
                kept = [True] * count
                if each_image_once:
                    kept = [_is_new(shown, image) for image in part.frame["image_id"]]
                pixels = _pixels(model, part, reader, bad, kept)
                if pixels:
                    part = part.take(pl.Series(kept))
                    own = [n for n, keep in zip(numbers, kept, strict=True) if keep]
                    with inference(model, precision):
                        found = captions(model, torch.stack(pixels).to(model.device), decoding, own)
                    yield _with(part, found)
                on_rows(count)
    bad.judge()


def _is_new(shown: set[int], image: str | None) -> bool:
    if image is None:
        return True
    key = hash(image)
    new = key not in shown
    shown.add(key)
    return new


def _pixels(
    model: Captioner, part: Batch, reader: ImageReader, bad: BadRows, kept: list[bool]
) -> list[torch.Tensor]:
    """(3, h, w) of each row that `kept` names, from which those go whose picture cannot be had."""
    found = []
    for i, (reference, data) in enumerate(zip(part.frame["image"], part.frame["image_bytes"], strict=True)):
        if not kept[i]:
            continue
        try:
            if data is None:
                if reference is None:
                    raise InputError("no image")
                data = reader.read(reference)
            found.append(model.preprocess(decode(data)))
        except ValueError as error:
            kept[i] = False
            row = next(portable_rows(part.slice(i, 1), Relocator(None)))
            bad.add(part.file, part.frame["line"][i], str(error), row, text_lines=part.text_lines)
    return found


def _with(part: Batch, found: list[Caption]) -> Batch:
    part = part.with_other(CAPTION, [caption.text for caption in found], pl.String())
    return part.with_other(SCORE, [round(caption.score, 5) for caption in found], pl.Float64())


def coco_results(batches: Iterable[Batch]) -> Iterator[bytes]:
    """`[{"image_id": …, "caption": …}, …]`, a line each: what COCO's scorers read. Ids that are whole numbers are
    written as such, as the annotations have them."""
    first = True
    for batch in batches:
        for image, caption in zip(batch.frame["image_id"], batch.values(CAPTION), strict=True):
            line: dict[str, Any] = {"image_id": _number(image), "caption": caption}
            yield (b"[\n" if first else b",\n") + orjson.dumps(line)
            first = False
    yield b"[]\n" if first else b"\n]\n"


def _number(image: str) -> int | str:
    is_whole = image.isascii() and image.isdecimal() and str(int(image)) == image and int(image) < 1 << 53
    return int(image) if is_whole else image

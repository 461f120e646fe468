"""AI Challenger's captions: one JSON list of `{"url", "image_id": "….jpg", "caption": [five]}`.

The test sets were never released: the papers report on the first 10,000 images of the validation file [W §5.3, Z
App. C]. What follows them is `val` here, so that what chooses a checkpoint and what is reported share no image.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import field, json_document
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError

REPORTED = 10_000  # images


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """The captions in the order of the file."""
    images = json_document(path)
    if not isinstance(images, list):
        raise InputError("not a list of images", file=path)
    begin, end = {"test": (0, REPORTED), "val": (REPORTED, len(images))}.get(split, (0, len(images)))
    for number, image in enumerate(images[begin:end], start=begin):
        what = f"image {number} of the list"
        name = field(image, "image_id", str, path, None, what)
        captions = field(image, "caption", list, path, None, what)
        reference = source.image(name, path)
        stem = name.removesuffix(".jpg")
        texts = [text.strip() for text in captions if isinstance(text, str) and text.strip()]
        for place, text in enumerate(texts):
            yield Row(f"{stem}#{place}", reference, stem, text, "zh")
        if not texts:
            yield Row(f"image/{stem}", reference, stem, None, "zh")

"""MS-COCO's own captions_*.json: images and annotations in two lists, joined by the image's number."""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import field, json_document
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """The captions, image by image in the order of the file's list. An image may have none."""
    document = json_document(path)
    names: dict[int, str] = {}
    captions: dict[int, list[tuple[int, str]]] = {}
    for image in field(document, "images", list, path, None):
        number = field(image, "id", int, path, None, "an image")
        names[number] = field(image, "file_name", str, path, None, f"image {number}")
        captions[number] = []
    for note in field(document, "annotations", list, path, None):
        number = field(note, "id", int, path, None, "an annotation")
        what = f"annotation {number}"
        image_number = field(note, "image_id", int, path, None, what)
        if image_number not in captions:
            raise InputError(f"{what}: no image has the id {image_number}", file=path)
        captions[image_number].append((number, field(note, "caption", str, path, None, what).strip()))
    for image_number, name in names.items():
        reference, stem = source.image(name, path), name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        texts = [(number, text) for number, text in captions[image_number] if text]
        for number, text in texts:
            yield Row(str(number), reference, stem, text, "en")
        if not texts:
            yield Row(f"image/{stem}", reference, stem, None, "en")

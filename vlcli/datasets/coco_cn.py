"""COCO-CN 201805 v1.1: a list of stems for each split, and one file of `COCO_val2014_000000217153#0<TAB>sentence`.

Retrieval is measured on the 1,053 sentences that people wrote of the 1,000 test images; of these images people also
translated the 5,000 English sentences (AltCLIP's COCO_CNb).
"""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError

WRITTEN = "imageid.human-written-caption.txt"
TRANSLATED = "imageid.manually-translated-caption.txt"


def rows(source: Source, path: str, split: str, captions: str = WRITTEN) -> Iterator[Row]:
    """The sentences of the images that the list at `path` names, in its order. An image may have none."""
    stems = {line.strip().removesuffix(".jpg"): number for number, line in lines(path)}
    found: dict[str, list[tuple[str, str]]] = {}
    file = source.find(captions)
    for number, line in lines(file):
        name, _, text = line.strip().replace("\t", " ", 1).partition(" ")
        stem, text = name.partition("#")[0], text.strip()
        if not (stem and text):
            raise InputError("not an image's stem and a sentence behind a tab", file=file, line=number)
        if stem in stems:
            found.setdefault(stem, []).append((name, text))
    for stem, number in stems.items():
        image = source.image(f"{stem}.jpg", path, number)
        for name, text in found.get(stem, ()):
            yield Row(name, image, stem, text, "zh")
        if stem not in found:
            yield Row(f"image/{stem}", image, stem, None, "zh")


def translated(source: Source, path: str, split: str) -> Iterator[Row]:
    return rows(source, path, split, captions=TRANSLATED)

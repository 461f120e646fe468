"""Karpathy's splits: dataset_coco.json, dataset_flickr30k.json and dataset_flickr8k.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlcli.datasets.files import field, json_document
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source

PARTS = {
    "train": ("train", "restval")
}  # MS-COCO's 113K images for training are 83K and 30K that were left over


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """The captions in the order of the file. The id of a row is its `sentid`."""
    for image in images(path, split):
        name = field(image, "filename", str, path, None)
        stem = name.rsplit(".", 1)[0]
        what = f"image {name}"
        reference = source.image(name, path)
        for sentence in field(image, "sentences", list, path, None, what):
            sentid = field(sentence, "sentid", int, path, None, what)
            text = field(sentence, "raw", str, path, None, what).strip()
            yield Row(str(sentid), reference, stem, text or None, "en")


def images(path: str, split: str) -> Iterator[dict[str, Any]]:
    """The images of a split as the file has them."""
    for image in field(json_document(path), "images", list, path, None):
        if field(image, "split", str, path, None) in PARTS.get(split, (split,)):
            yield image

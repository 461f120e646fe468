"""Flickr30k-CNA [Z §2.2]: `6228559981#0<TAB>caption`, the image being the id and `.jpg`; blank lines in between."""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """The captions in the order of the file. An id may lack its `#N`."""
    for number, line in lines(path):
        name, tab, text = line.partition("\t")
        image, text = name.strip().partition("#")[0].removesuffix(".jpg"), text.strip()
        if not (tab and image and text):
            raise InputError("not an image's id and a caption behind a tab", file=path, line=number)
        row_id = name.strip() if "#" in name else f"{image}#{number}"
        yield Row(row_id, source.image(f"{image}.jpg", path, number), image, text, "zh")

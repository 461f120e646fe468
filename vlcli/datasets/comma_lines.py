"""CLIP_benchmark's text form: a header, then `NAME.jpg,caption`, split at the first `.jpg,` (captions have commas)."""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import lines
from vlcli.datasets.flickr_cn import joined
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError

MARK = ".jpg,"


def rows(source: Source, path: str, split: str, lang: str = "en") -> Iterator[Row]:
    """The captions in the order of the file; of Chinese ones the tags that the published files have are taken off."""
    for number, line in lines(path):
        stem, mark, text = line.partition(MARK)
        if number == 1 and not mark:
            continue
        text = joined(text) if lang == "zh" else text.strip()
        if not (stem and mark and text):
            raise InputError("not NAME.jpg,caption", file=path, line=number)
        yield Row(f"{stem}#{number}", source.image(f"{stem}.jpg", path, number), stem, text, lang)


def chinese(source: Source, path: str, split: str) -> Iterator[Row]:
    return rows(source, path, split, lang="zh")

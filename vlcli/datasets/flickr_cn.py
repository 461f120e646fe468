"""Flickr8k-CN and Flickr30k-CN as published: `ID#zhb#0 TEXT`, whose text is perhaps cut into words with tags.

    seg.flickr30kzhmbosontest.caption.txt   1007129816#zhm#0 一个:m 男人:n 戴:v 着:uzhe 帽子:n
    Flickr8k-CN                             1000268201_693b08cb0e.jpg#zhb#1 一个女孩走进一个木结构。

Training and validation sentences are machine translations (`zhb`), the test's human ones (`zhm`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from vlcli.datasets.files import lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError

_TAGGED = re.compile(r"(.*):[a-z]{1,6}\d?", re.DOTALL)
_LATIN = re.compile(r"[A-Za-z0-9]")


def joined(text: str) -> str:
    """`一个:m 男人:n` → `一个男人`: without part-of-speech tags, and without the spaces of a segmenter.

    Tags are taken off where most words have one: a caption may well hold a colon. Two Latin words keep the space
    between them.
    """
    words = text.split()
    tagged = [_TAGGED.fullmatch(word) for word in words]
    if 2 * sum(found is not None for found in tagged) > len(words):
        words = [found.group(1) if found else word for word, found in zip(words, tagged, strict=True)]
    result = ""
    for word in words:
        latin = result and word and _LATIN.match(result[-1]) and _LATIN.match(word)
        result += f" {word}" if latin else word
    return result


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """The captions in the order of the file, then images of the split's list that have none."""
    described = set()
    for number, line in lines(path):
        name, _, text = line.strip().replace("\t", " ").partition(" ")
        text = joined(text)
        image, hash_, _ = name.partition("#")
        if not (image and hash_ and text):
            raise InputError("not ID#zh#N and a caption behind a space", file=path, line=number)
        stem = image.removesuffix(".jpg")
        described.add(stem)
        yield Row(name, source.image(f"{stem}.jpg", path, number), stem, text, "zh")
    listed = _list(path)
    for number, image in lines(listed) if listed else ():
        stem = image.strip().removesuffix(".jpg")
        if stem not in described:
            yield Row(f"image/{stem}", source.image(f"{stem}.jpg", str(listed), number), stem, None, "zh")


def _list(path: str) -> str | None:
    """`X/TextData/seg.X.caption.txt` → `X/ImageSets/X.txt`, where it is there."""
    name = os.path.basename(path).removeprefix("seg.").removesuffix(".caption.txt")
    found = os.path.join(os.path.dirname(os.path.dirname(path)), "ImageSets", f"{name}.txt")
    return found if os.path.isfile(found) else None

"""Captions whose line says which image they are of: Multi30k and XTD."""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError, UsageError

TASK_2 = ("en", "de")  # of Multi30k; of fr and cs there is one translated caption an image
MULTI30K = ("en", "de", "fr", "cs")
# split → the base name of task 1 and of task 2
_SPLITS = {"train": ("train", "train"), "val": ("val", "val"), "test": ("test_2016_flickr", "test_2016")}
XTD = ("en", "de", "fr", "zh", "ja", "it", "es", "ru", "pl", "tr", "ko")


def beside(source: Source, images: str, files: list[str], lang: str) -> Iterator[Row]:
    """A row for line i of each file, which describes the image that line i of `images` names."""
    # The last line of a file may lack its end, and captions of the WMT's sets name their image as `NAME.jpg#ID`.
    listed = [(number, line.strip().partition("#")[0]) for number, line in lines(images)]
    names = [name for _, name in listed]
    texts = [_texts(file, len(names), images) for file in files]
    for i, (number, name) in enumerate(listed):
        stem = name.removesuffix(".jpg")
        reference = source.image(name, images, number)
        for k, column in enumerate(texts):
            yield Row(f"{stem}#{lang}#{k}#{number}", reference, stem, column[i], lang)


def _texts(file: str, count: int, images: str) -> list[str]:
    texts = []
    for number, line in lines(file, blank=True):
        if not line.strip():
            raise InputError("no caption", file=file, line=number)
        texts.append(line.strip())
    if len(texts) != count:
        raise InputError(f"{len(texts)} lines beside the {count} of {images}", file=file)
    return texts


def multi30k(source: Source, path: str, split: str) -> Iterator[Row]:
    """English and German as task 2 has them, five captions an image; French and Czech are task 1's, one an image.

    Where the files of task 2 are not there, or the split has none, all four are task 1's.
    """
    second = _SPLITS.get(split, ("", ""))[1]
    images = source.files.matching(f"{second}_images.txt") if second else None
    for lang in TASK_2:
        files = [source.files.first(_names(f"{second}.{k}.{lang}")) for k in range(1, 6)] if images else []
        whole = [file for file in files if file is not None]
        if source.reads(lang):
            if images and len(whole) == 5:
                yield from beside(source, images, whole, lang)
            else:
                yield from _task_1(source, split, lang)
    for lang in MULTI30K:
        if lang not in TASK_2 and source.reads(lang):
            yield from _task_1(source, split, lang)


def multi30k_task_1(source: Source, path: str, split: str) -> Iterator[Row]:
    """One caption an image in each language: the English original and its translations."""
    for lang in MULTI30K:
        if source.reads(lang):
            yield from _task_1(source, split, lang)


def _names(name: str) -> tuple[str, str]:
    return f"{name}.gz", name


def _task_1(source: Source, split: str, lang: str) -> Iterator[Row]:
    base = _SPLITS.get(split, (split, ""))[0]
    file = source.files.first(_names(f"{base}.{lang}"))
    if file is None:
        if source.langs:
            raise UsageError(f"{source.name}: no {base}.{lang}.gz in {source.files.shown()}")
        return
    images = source.find(f"image_splits/{base}.txt", f"{base}.txt", f"image_splits/{base}_images.txt")
    yield from beside(source, images, [file], lang)


def xtd(source: Source, path: str, split: str) -> Iterator[Row]:
    """A caption of each image in each of eleven languages. Japanese is called `jp` in the files."""
    for lang in XTD:
        if not source.reads(lang):
            continue
        name = f"test_1kcaptions_{'jp' if lang == 'ja' else lang}.txt"
        file = source.files.matching(name)
        if file is not None:
            yield from beside(source, path, [file], lang)
        elif source.langs:
            raise UsageError(f"{source.name}: no {name} in {source.files.shown()}")

"""Crossmodal-3600: an object an image, `{"image/key": …, "zh": {"caption": [several], …}, …}` in 36 languages."""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import field, json_lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import UsageError

_TAGS = "ar bn cs da de el en es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt quz ro ru sv sw te th tr uk vi zh"
LANGS = tuple(_TAGS.split())


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """Every caption, image by image. An image without one in a language is a candidate there."""
    seen: set[str] = set()
    for number, image in json_lines(path):
        key = field(image, "image/key", str, path, number)
        reference = source.image(f"{key}.jpg", path, number)
        there = [lang for lang, value in image.items() if isinstance(value, dict) and "caption" in value]
        for lang in source.langs or there:
            said = image.get(lang)
            captions = [] if said is None else field(said, "caption", list, path, number, lang)
            texts = [text.strip() for text in captions if isinstance(text, str) and text.strip()]
            for k, text in enumerate(texts):
                yield Row(f"{key}#{lang}#{k}", reference, key, text, lang)
            if texts:
                seen.add(lang)
            else:
                yield Row(f"{key}#{lang}", reference, key, None, lang)
    missing = [lang for lang in source.langs if lang not in seen]
    if missing:
        raise UsageError(f"{source.name}: {path} has no captions in {missing[0]}")

"""MUGE's files, and Chinese-CLIP's of the same shape: queries with the ids of their images, and a table of pictures.

    MR_valid_queries.jsonl   {"query_id": 8428, "query_text": "高级感托特包斜挎", "item_ids": [1076345, 517602]}
    valid_texts.jsonl        {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345, 517602]}
    MR_valid_imgs.tsv        1076345<TAB>base64

A query has several images, an image may have several queries or none; on the test set no query has an image. What
Chinese-CLIP publishes has either set of names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from vlcli.datasets.files import field, json_lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError, UsageError
from vlcli.images.tsv import TsvIndex

_NAMES = (("query_id", "query_text", "item_ids"), ("text_id", "text", "image_ids"))
_ENDS = ("_queries.jsonl", "_texts.jsonl")


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """A row for each query and image that belong together, then what belongs to nothing."""
    table = _table(source, path)
    pictures = TsvIndex(table)
    shown: set[str] = set()
    for number, query in json_lines(path):
        id_name, text_name, images_name = next((n for n in _NAMES if n[0] in query), _NAMES[1])
        text_id = field(query, id_name, (int, str), path, number)
        text = field(query, text_name, str, path, number).strip()
        if not text:
            raise InputError(f"{text_name} is empty", file=path, line=number)
        images = query.get(images_name)
        if images is None or images == []:
            yield Row(str(text_id), None, None, text, "zh", text_id)
            continue
        for image in field(query, images_name, list, path, number):
            name = str(image)
            if name not in pictures:
                raise InputError(f"its image {name} is not in {table}", file=path, line=number)
            shown.add(name)
            yield Row(f"{text_id}/{name}", f"{table}#{name}", name, text, "zh", text_id)
    for name in pictures.ids:
        if name not in shown:
            yield Row(f"image/{name}", f"{table}#{name}", name, None, "zh")


def _table(source: Source, path: str) -> str:
    """The table of the pictures: beside the queries, else anywhere below what was given."""
    end = next((end for end in _ENDS if path.endswith(end)), None)
    if end is None:
        raise UsageError(f"{path}: its name does not end with {' or '.join(_ENDS)}")
    beside = path.removesuffix(end) + "_imgs.tsv"
    if os.path.isfile(beside):
        return beside
    return source.picture_file(os.path.basename(beside), path)

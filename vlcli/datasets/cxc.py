"""Crisscrossed Captions: people's ratings from 0 to 5 of pairs of MS-COCO's texts, of its images, and of both.

    sts_test.csv    caption1,caption2,agg_score,sampling_method   COCO_val2014:sentid:411553, …
    sis_test.csv    image1,image2,…                               COCO_val2014_000000205866.jpg, …
    sits_test.csv   caption,image,…

Texts and images are those of Karpathy's dataset_coco.json.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from vlcli.datasets.files import csv_rows
from vlcli.datasets.table import Reading, load_dataset
from vlcli.errors import InputError
from vlcli.shards.pair_table import PairTable

COLUMNS = {"sts": ("caption1", "caption2"), "sis": ("image1", "image2"), "sits": ("caption", "image")}
REST = ("agg_score", "sampling_method")


class Rated(NamedTuple):
    """Two ids, each of a text (a row's id) or of an image (its image_id), and the mean rating."""

    left: str
    right: str
    score: float


class Ratings(NamedTuple):
    sts: list[Rated]  # text, text
    sis: list[Rated]  # image, image
    sits: list[Rated]  # text, image


def load_cxc(reading: Reading) -> tuple[Ratings, PairTable]:
    """The ratings of a split, and its captions. Raises InputError for a rating of what the captions do not have."""
    files = {kind: reading.source.find(f"{kind}_{reading.split}.csv") for kind in COLUMNS}
    table = load_dataset(reading)
    texts = {name for name, said in zip(table.ids, table.texts, strict=True) if said}
    images = set(table.image_ids)
    found = []
    for kind, columns in COLUMNS.items():
        rated = []
        for line, (left, right, score, _) in csv_rows(files[kind], (*columns, *REST)):
            ends = []
            for column, value in zip(columns, (left, right), strict=True):
                is_text = column.startswith("caption")
                name = value.rsplit(":", 1)[-1] if is_text else value.removesuffix(".jpg")
                if name not in (texts if is_text else images):
                    cause = f"{column} {value} is not in the {reading.split} split of dataset_coco.json"
                    raise InputError(cause, file=files[kind], line=line)
                ends.append(name)
            rated.append(Rated(ends[0], ends[1], _score(score, files[kind], line)))
        found.append(rated)
    return Ratings(*found), table


def _score(value: str, file: str, line: int) -> float:
    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 5:
        raise InputError(f"agg_score is {value!r}, not a number from 0 to 5", file=file, line=line)
    return score

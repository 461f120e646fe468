"""What a model says of every image of a classification, written as it is found: the five best classes, or the scores of
all of them as ELEVATER's server takes them.

    jsonl      {"id", "image_id", "label": "狐狸", "best": [{"class": "狐狸", "score": 0.31}, …]}
    elevater   {"model_name", "dataset_name", …, "n_shot": 0, "rnd_seeds": [0], "predictions": [[[…]]]}

ELEVATER's predictions are (1, images, classes) probabilities to six digits, in the order of the rows and of the label
set, both of which have to be the published ones. A submission gathers one such object a set: `vlcli report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.evaluation.class_metrics import probabilities
from vlcli.evaluation.truth import Truth
from vlcli.records.atomic import atomic_file

BEST = 5
DIGITS = 6
Scored = Callable[[Tensor], None]  # of the scores (b, classes) of the next images
Predictions = Callable[[Any, Any, Truth], Any]  # (model, table, truth) → a context that gives a `Scored`

# A set's name here → ELEVATER's.
ELEVATER = {
    "imagenet": "imagenet-1k",
    "caltech101": "caltech-101",
    "cifar10": "cifar-10",
    "cifar100": "cifar-100",
    "country211": "country211",
    "dtd": "dtd",
    "eurosat": "eurosat_clip",
    "fer2013": "fer-2013",
    "aircraft": "fgvc-aircraft-2013b-variants102",
    "food101": "food-101",
    "gtsrb": "gtsrb",
    "hateful-memes": "hateful-memes",
    "kitti-distance": "kitti-distance",
    "mnist": "mnist",
    "flowers102": "oxford-flower-102",
    "pets": "oxford-iiit-pets",
    "pcam": "patch-camelyon",
    "rendered-sst2": "rendered-sst2",
    "resisc45": "resisc45_clip",
    "cars": "stanford-cars",
    "voc2007": "voc-2007-classification",
}


def best_classes(path: Path, *, force: bool = False) -> Predictions:
    """A line for each image, with its class and the best of all."""

    @contextmanager
    def write(model: Any, table: Any, truth: Truth) -> Iterator[Scored]:
        names = list(truth.names.names.values())
        rows = iter(zip(truth.rows, truth.labels.tolist(), strict=True))
        with atomic_file(path, force=force) as file:

            def scored(scores: Tensor) -> None:
                # a stable sort: of equal scores the lower class stands first, as in the numbers
                values, places = scores.sort(dim=1, descending=True, stable=True)
                for best, at in zip(values[:, :BEST].tolist(), places[:, :BEST].tolist(), strict=True):
                    row, own = next(rows)
                    label = (
                        [names[k] for k, is_one in enumerate(own) if is_one]
                        if isinstance(own, list)
                        else names[own]
                    )
                    said = {
                        "id": table.ids[row],
                        "image_id": table.image_ids[row],
                        "label": label,
                        "best": [
                            {"class": names[k], "score": round(score, DIGITS)}
                            for score, k in zip(best, at, strict=True)
                        ],
                    }
                    file.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))

            yield scored

    return write


def elevater(
    path: Path, dataset: str | None, name: str, *, calibrated: bool, force: bool = False
) -> Predictions:
    """ELEVATER's file of one set. `calibrated` scores are probabilities already. UsageError for another set."""
    if dataset not in ELEVATER:
        raise UsageError(
            f"--predictions-as elevater is of its sets: --dataset {', '.join(ELEVATER)}",
        )

    @contextmanager
    def write(model: Any, table: Any, truth: Truth) -> Iterator[Scored]:
        total = sum(parameter.numel() for parameter in model.parameters())
        head = {
            "model_name": name,
            "dataset_name": ELEVATER[dataset],
            "num_trainable_params": 0,
            "num_params": total,
            "num_visual_params": sum(parameter.numel() for parameter in model.image.parameters()),
            "num_backbone_params": total,
            "n_shot": 0,
            "rnd_seeds": [0],
        }
        with atomic_file(path, force=force) as file:
            file.write(orjson.dumps(head)[:-1] + b',"predictions":[[')
            begun = False

            def scored(scores: Tensor) -> None:
                nonlocal begun
                shares = scores.double() if calibrated else probabilities(scores.double())
                lines = orjson.dumps(np.round(shares.numpy(), DIGITS), option=orjson.OPT_SERIALIZE_NUMPY)
                file.write((b"," if begun else b"") + lines[1:-1])
                begun = True

            yield scored
            file.write(b"]]}\n")

    return write

"""Classifiers on tables: which rows are of which class, and how many of them are told right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlcli.errors import InputError
from vlcli.evaluation.class_metrics import Tally, numbers
from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import decode_row, inference
from vlcli.evaluation.probes.tables import refuse_same
from vlcli.evaluation.tasks import Announce, silent
from vlcli.evaluation.truth import Truth, one_label, truth_of
from vlcli.models.classifier import Classifier
from vlcli.text.labels import LabelSet


def label_set(labels: tuple[str, ...], name: str) -> LabelSet:
    """The classes of a classifier."""
    return LabelSet(name, {label: label for label in labels})


def classes_of(
    tables: Mapping[str, Any], column: str, known: Sequence[str] = ("train",)
) -> tuple[LabelSet, dict[str, Truth]]:
    """The values of `column` in the `known` tables as classes, numbers in their order, and the rows of every table.

    Raises UsageError where two of the tables are one, and InputError for a row without a class, for a single class,
    and for a table with a class that the known ones do not show.
    """
    refuse_same(tables)
    train = tables["train"]
    found = {str(name): None for one in known for name in truth_of(tables[one], column, None).names.names}
    values = list(found)
    values.sort(key=lambda value: (0, int(value), value) if value.isdecimal() else (1, 0, value))
    if len(values) < 2:
        raise InputError(
            f"every {column} is {values[0]!r}: there is nothing to tell apart", file=train.source
        )
    labels = label_set(tuple(values), f"{column} of the training rows")
    for name, table in tables.items():
        for row, value in zip(table.ids, table.frame[column], strict=True):
            label = one_label(value)
            if label is not None and not isinstance(label, list) and str(label) not in labels.names:
                raise InputError(
                    f"row {row}: {column} {str(label)!r} is in no training row: nothing can be learnt of it",
                    file=table.source,
                    remedy=f"leave it out of the {name} rows, or add rows of it to --data",
                )
    return labels, {name: truth_of(table, column, labels) for name, table in tables.items()}


def logits(
    model: Classifier, table: Any, rows: list[int], *, batch_size: int = 64, precision: str = "fp32"
) -> Iterator[Tensor]:
    """(b, classes) float32 on the CPU, a few rows at a time."""
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        pixels = torch.stack([model.preprocess(decode_row(table, row)) for row in part])
        with torch.no_grad(), inference(model, precision):
            yield model(pixels.to(model.device)).float().cpu()


def classify_images(
    model: Classifier,
    table: Any,
    *,
    column: str = "label",
    truth: Truth | None = None,
    metric: str = "top1",
    bootstrap: int = 1000,
    seed: int = 0,
    split: str | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    announce: Announce = silent,
) -> dict[str, Any]:
    """What `zeroshot` prints of a classifier, its numbers in percent. InputError for rows of other classes."""
    labels = label_set(model.config.labels, f"the classifier's {len(model.config.labels)}")
    truth = truth or truth_of(table, column, labels)
    tally, told = Tally(len(labels), metric), announce("images", len(truth))
    done = 0
    for part in logits(model, table, truth.rows, batch_size=batch_size, precision=precision):
        tally.add(
            part.softmax(1) if metric in ("map11", "auc") else part, truth.labels[done : done + len(part)]
        )
        done += len(part)
        told(len(part))
    return {
        **describe(model, table, [], split=split, lang="none"),
        "labels": f"values of {column}",
        "prompts": "none",
        "n": len(truth),
        "classes": len(labels),
        "metric": metric,
        **numbers(tally.parts(), len(truth), bootstrap=bootstrap, seed=seed),
    }

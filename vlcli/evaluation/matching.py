"""Image-text matching: does this text fit this image? AUC of the mean match probability (R2D2 §2.2, Table 4)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from vlcli.errors import InputError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.describe import describe
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.metrics import percent
from vlcli.evaluation.rerank import Matcher, probability, refuse_no_ranking
from vlcli.records.atomic import atomic_file


def match_labels(table: Any, column: str) -> npt.NDArray[np.int64]:
    """1 where a row's text fits its image, 0 where it does not. InputError for anything but 0, 1, true and false."""
    known = {"0": 0, "1": 1, "false": 0, "true": 1}
    found = []
    for row, value in enumerate(table.frame[column].to_list()):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        said = str(value).removesuffix(".0").lower()
        if said not in known:
            raise InputError(
                f"row {table.ids[row]}: {column} is {value!r}, not 0 or 1", file=str(table.source)
            )
        found.append(known[said])
    return np.array(found, dtype=np.int64)


def auc(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64] | None = None,
) -> float:
    """The chance that a match scores above a mismatch, equal scores counting half; NaN where one of both is missing."""
    weights = np.ones(len(scores)) if weights is None else weights
    _, places = np.unique(scores, return_inverse=True)
    positive = np.bincount(places, weights * labels)
    negative = np.bincount(places, weights * (1 - labels))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else float("nan")


def row_scores(
    model: Any,
    table: Any,
    *,
    batch_size: int = 64,
    precision: str = "fp32",
    announce: Any = None,
) -> npt.NDArray[np.float64]:
    """(rows,) the mean match probability of each row's image with its (first) text."""
    gallery = Gallery.of(table)
    images = {image: i for i, image in enumerate(gallery.image_ids)}
    texts = {text: j for j, text in enumerate(gallery.texts)}
    matcher = Matcher(
        model,
        table,
        gallery.image_rows,
        gallery.texts,
        batch_size=batch_size,
        precision=precision,
        progress=announce,
    )
    i = np.array([images[image] for image in table.image_ids], dtype=np.int64)
    j = np.array([texts[unicodedata.normalize("NFC", of[0])] for of in table.texts], dtype=np.int64)
    return probability(matcher(i, j))


def matching(
    model: Any,
    table: Any,
    *,
    column: str = "label",
    bootstrap: int = 1000,
    seed: int = 0,
    split: str | None = None,
    lang: str | None = None,
    predictions: Path | None = None,
    force: bool = False,
    batch_size: int = 64,
    precision: str = "fp32",
    announce: Any = None,
) -> dict[str, Any]:
    """{…, "task": "matching", "n", "positives", "auc", "ci95"} of the rows of `table`, whose frame has the labels in
    `column`; AUC in percent. `predictions` is a JSONL file of {"id", "image_id", "text", "score"}, a line a row.

    Where no row has a label, as in a leaderboard's test set, there are predictions and no AUC.
    """
    refuse_no_ranking(model)
    if not len(table):
        raise InputError("no rows", file=str(table.source))
    given = table.frame[column].to_list()
    labels = None if all(value is None for value in given) else match_labels(table, column)
    if labels is not None and labels.min() == labels.max():
        raise InputError(
            f"every {column} is {labels[0]}: there is nothing to tell apart", file=str(table.source)
        )
    if labels is None and predictions is None:
        raise InputError(f"no row has a {column}", file=str(table.source), remedy="--predictions OUT.jsonl")
    scores = row_scores(model, table, batch_size=batch_size, precision=precision, announce=announce)
    if predictions is not None:
        with atomic_file(predictions, force=force) as file:
            for row, score in enumerate(scores):
                said = {
                    "id": table.ids[row],
                    "image_id": table.image_ids[row],
                    "text": table.texts[row][0],
                    "score": round(float(score), 6),
                }
                file.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
    texts = [of[0] for of in table.texts]
    result: dict[str, Any] = {
        **describe(model, table, texts, split=split, lang=lang),
        "task": "matching",
        "prompts": "none",
        "n": len(scores),
        "positives": None if labels is None else int(labels.sum()),
        "auc": None if labels is None else percent(auc(scores, labels)),
        "ci95": {},
    }
    if labels is not None and bootstrap and len(set(table.image_ids)) > 1:
        result["ci95"] = {"auc": _interval(list(table.image_ids), scores, labels, bootstrap, seed)}
    return result


def _interval(
    images: Sequence[str],
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    count: int,
    seed: int,
) -> list[float]:
    """Images are resampled, with all their rows."""
    names, unit = np.unique(np.array(images), return_inverse=True)

    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.array([100 * auc(scores, labels, weights[unit])])

    return interval(statistic, len(names), count=count, seed=seed)[0]

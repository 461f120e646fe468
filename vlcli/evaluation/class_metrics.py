"""Numbers of classification from the scores of every class, and the one of them that a data set is reported by.

Top-1, top-5 and mean per class come from the place of the true class. Kinetics is reported by the mean of top-1 and
top-5 [X §5.1]. Two numbers need the scores themselves: the 11-point mean average precision of VOC 2007, whose images
may be of several classes, and the area under the ROC curve of two classes (Hateful Memes).

All weigh images, so that a bootstrap resamples them without scoring anything anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlcli.errors import InputError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.matching import auc
from vlcli.evaluation.metrics import percent

Weights = npt.NDArray[np.float64]
Statistic = Callable[[Weights], npt.NDArray[np.float64]]  # of the images' weights, as shares
Parts = Sequence[tuple[tuple[str, ...], Statistic]]  # names of numbers, and what computes them

TOP = (1, 5)
PLACES = ("top1", "top5", "mean_per_class")
SHOWN = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
    "mean_top1_top5": "mean(top-1, top-5)",
    "map11": "11-point mAP",
    "auc": "AUC",
}
LOGIT_SCALE = 100.0  # of CLIP, and of ELEVATER for every model: what makes probabilities of cosines
RECALLS = np.linspace(0, 1, 11)


class Classified(NamedTuple):
    """The place of each image's true class among all, from 1, and which class that is."""

    place: npt.NDArray[np.int64]  # (n,)
    labels: npt.NDArray[np.int64]  # (n,)


def class_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """(b,) 1-based place of the true class; among equal scores the lower class stands first, as in argmax. One at −∞,
    which nothing speaks for, stands last."""
    best = scores.amax(1)
    # NaN is the maximum of its row; a class that was never learnt may be at −∞.
    if torch.isnan(best).any() or torch.isposinf(best).any():
        raise InputError("the model's similarities are not finite", remedy="the checkpoint is damaged")
    true = scores.gather(1, labels[:, None])
    place = 1 + (scores > true).sum(1)
    # Ties are rare: only their rows are looked at again.
    tied = ((scores == true).sum(1) > 1).nonzero()[:, 0]
    if len(tied):
        before = torch.arange(scores.shape[1]) < labels[tied, None]
        place[tied] += ((scores[tied] == true[tied]) & before).sum(1)
    return place.masked_fill(torch.isneginf(true[:, 0]), scores.shape[1])


def by_place(test: Classified) -> Statistic:
    """PLACES as shares, when each image counts with its weight; a class that weighs nothing is not counted."""
    hits = np.stack([test.place <= k for k in TOP]).astype(np.float64)  # (2, n)
    present = np.unique(test.labels, return_inverse=True)[1]

    def statistic(weights: Weights) -> npt.NDArray[np.float64]:
        count = np.bincount(present, weights=weights)
        right = np.bincount(present, weights=weights * hits[0])
        drawn = count > 0
        with np.errstate(invalid="ignore"):  # a resample without an image of a subset
            top = hits @ weights / weights.sum()
        return np.append(top, (right[drawn] / count[drawn]).mean() if drawn.any() else np.nan)

    return statistic


def eleven_points(scores: Weights, truth: npt.NDArray[np.bool_], weights: Weights | None = None) -> float:
    """The mean over recalls 0, 0.1, … 1 of the best precision at that recall or beyond; NaN without a positive.

    scores and truth (n,) of one class. Images of equal scores are found together: their order decides nothing.
    """
    return _eleven_points(*_levels(scores), truth.astype(np.float64), weights)


def _levels(scores: Weights) -> tuple[npt.NDArray[np.int64], int]:
    """Of each image the number of its score among the distinct ones, from the highest; and how many there are."""
    distinct, level = np.unique(-scores, return_inverse=True)
    return level, len(distinct)


def _eleven_points(
    level: npt.NDArray[np.int64], count: int, truth: Weights, weights: Weights | None = None
) -> float:
    weights = np.ones(len(level)) if weights is None else weights
    positive = np.cumsum(np.bincount(level, weights * truth, count))
    found = np.cumsum(np.bincount(level, weights, count))
    if not positive[-1]:
        return float("nan")
    precision = positive / np.maximum(found, np.finfo(float).tiny)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # 1e-12: a recall of 3/10 is the 0.3 of the list
    first = np.searchsorted(positive / positive[-1], RECALLS - 1e-12)
    return float(best[first].mean())


def mean_precision(scores: Weights, truth: npt.NDArray[np.int8]) -> Statistic:
    """Mean over the classes that have positives of `eleven_points`, of scores and truth (n, classes), as a share. The
    ranking of a class leaves out the images of which its truth is −1 (see `Truth`)."""
    classes = [
        (counted, (*_levels(scores[counted, c]), (truth[counted, c] > 0).astype(np.float64)))
        for c in range(scores.shape[1])
        if (truth[:, c] > 0).any()
        for counted in [truth[:, c] >= 0]
    ]

    def statistic(weights: Weights) -> npt.NDArray[np.float64]:
        return np.array([np.nanmean([_eleven_points(*one, weights[counted]) for counted, one in classes])])

    return statistic


def two_class_auc(scores: Weights, labels: npt.NDArray[np.int64]) -> Statistic:
    """The area under the ROC curve of class 1 against class 0, by the difference of their scores (n, 2)."""
    difference = scores[:, 1] - scores[:, 0]
    return lambda weights: np.array([auc(difference, labels, weights)])


class Tally:
    """Takes scores a few images at a time, and gives the numbers of all. `metric` is the one that the set goes by."""

    def __init__(self, classes: int, metric: str = "top1") -> None:
        assert metric in SHOWN, metric
        if metric == "auc" and classes != 2:
            raise InputError(f"an AUC is of two classes, and there are {classes}")
        self.classes, self.metric = classes, metric
        self._keeps = metric in ("map11", "auc")
        self._places: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """scores (b, classes); labels (b,) int64, or, of images of several classes, (b, classes) int8."""
        if labels.dim() == 1:
            self._places.append(class_ranks(scores, labels))
        elif self.metric != "map11":
            raise InputError("images of several classes have no top-1", remedy="--metric map11")
        if self._keeps:
            self._scores.append(scores.double())
        self._labels.append(labels)

    def __len__(self) -> int:
        return sum(map(len, self._labels))

    @property
    def classified(self) -> Classified | None:
        """The places of the true classes, where there is one of each image."""
        if not self._places:
            return None
        return Classified(torch.cat(self._places).numpy(), torch.cat(self._labels).numpy())

    def parts(self) -> Parts:
        """Names of numbers and what computes them, as shares."""
        found: list[tuple[tuple[str, ...], Statistic]] = []
        if (test := self.classified) is not None:
            places = by_place(test)
            found.append((PLACES, places))
            if self.metric == "mean_top1_top5":
                found.append((("mean_top1_top5",), lambda weights: places(weights)[:2].mean(keepdims=True)))
        if self._keeps:
            scores, labels = torch.cat(self._scores).numpy(), torch.cat(self._labels).numpy()
            if self.metric == "auc":
                if len(np.unique(labels)) < 2:
                    raise InputError("an AUC is of two classes, and all rows are of one")
                found.append((("auc",), two_class_auc(scores, labels)))
            else:
                truth = labels if labels.ndim == 2 else labels[:, None] == np.arange(self.classes)
                found.append((("map11",), mean_precision(scores, truth.astype(np.int8))))
        return found


def numbers(parts: Parts, n: int, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """The numbers in percent by name, and under `ci95` their intervals: images are drawn once for all of them."""
    names = [name for some, _ in parts for name in some]

    def statistic(weights: Weights) -> npt.NDArray[np.float64]:
        return np.concatenate([one(weights) for _, one in parts])

    result: dict[str, Any] = dict(zip(names, map(percent, statistic(np.ones(n))), strict=True))
    if bootstrap < 1 or n < 2:
        return {**result, "ci95": {}}
    bounds = interval(lambda weights: 100 * statistic(weights), n, count=bootstrap, seed=seed)
    return {**result, "ci95": dict(zip(names, bounds, strict=True))}


def mean_parts(tests: Sequence[Parts], rows: Sequence[npt.NDArray[np.int64]] | None = None) -> Parts:
    """The same numbers as means over several tests (one a language). Test k is of the images `rows[k]` among all, or of
    all: an image is drawn for every test at once, as what they say of it is not independent.
    """
    names = tuple(name for some, _ in tests[0] for name in some)

    def of(parts: Parts, mine: npt.NDArray[np.int64] | None) -> Statistic:
        return lambda w: np.concatenate([one(w if mine is None else w[mine]) for _, one in parts])

    statistics = [of(parts, None if rows is None else rows[k]) for k, parts in enumerate(tests)]
    return [(names, lambda weights: np.mean([one(weights) for one in statistics], axis=0))]


def accuracies(
    place: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, bootstrap: int, seed: int
) -> dict[str, Any]:
    """PLACES and their `ci95` from the place of each image's true class."""
    return mean_accuracies([Classified(place, labels)], bootstrap=bootstrap, seed=seed)


def mean_accuracies(tests: Sequence[Classified], *, bootstrap: int, seed: int) -> dict[str, Any]:
    """The same, as means over several tests of the same images (see `mean_parts`)."""
    parts = mean_parts([[(PLACES, by_place(test))] for test in tests])
    return numbers(parts, len(tests[0].place), bootstrap=bootstrap, seed=seed)


def accuracy_statistic(tests: Sequence[Classified]) -> Statistic:
    """PLACES in percent, as means over the tests, when each image counts with its weight (n,)."""
    [(_, statistic)] = mean_parts([[(PLACES, by_place(test))] for test in tests])
    return lambda weights: 100 * statistic(weights)


def probabilities(scores: Tensor) -> Tensor:
    """Cosines (b, classes) as probabilities, which is what ELEVATER ranks images by; the order of classes stays."""
    return (LOGIT_SCALE * scores).softmax(1)

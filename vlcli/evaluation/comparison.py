"""Two checkpoints on the same data: by how much the first is better, with paired 95 % intervals.

The units that the bootstrap draws are drawn for both at once, so what makes some pictures easy and others hard for
either is not in the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from vlcli.errors import UsageError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.retrieval import Ranks, recall_statistic, sides_of
from vlcli.evaluation.zeroshot import NUMBERS, Classified, accuracy_statistic

Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def compare_recalls(
    one: Ranks, other: Ranks, positives: Sequence[AbstractSet[int]], *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """{"i2t", "t2i", "MR", "ci95"} of `one` minus `other`, in points of percent. Both ranked the same gallery."""
    everyone = [range(len(positives))]
    first, units, names = recall_statistic([one], [positives], everyone)
    second, _, _ = recall_statistic([other], [positives], everyone)
    values, bounds = _difference(first, second, units, bootstrap, seed)
    ci95 = sides_of(names, bounds) if bounds else {}
    return {"i2t": None, "t2i": None, **sides_of(names, values), "ci95": ci95}


def compare_accuracies(
    one: Classified, other: Classified, *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """{"top1", "top5", "mean_per_class", "ci95"} of `one` minus `other`, in points of percent, of the same images."""
    assert np.array_equal(one.labels, other.labels), "the same images, in the same order"
    first, second = (accuracy_statistic([test]) for test in (one, other))
    values, bounds = _difference(first, second, len(one.place), bootstrap, seed)
    found: dict[str, Any] = dict(zip(NUMBERS, values, strict=True))
    return {**found, "ci95": dict(zip(NUMBERS, bounds, strict=False))}


def _difference(
    first: Statistic, second: Statistic, units: int, count: int, seed: int
) -> tuple[list[float], list[list[float]]]:
    """Differences and their intervals; none where nothing can be drawn."""

    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return first(weights) - second(weights)

    values = [round(float(value), 4) for value in statistic(np.ones(units))]
    bounds = interval(statistic, units, count=count, seed=seed) if count and units > 1 else []
    return values, bounds


def require_comparable(one: Mapping[str, Any], other: str) -> None:
    """UsageError where the checkpoint `other` is that of the result `one`."""
    if one["checkpoint"] == other:
        raise UsageError(f"--compare: both are checkpoint {other}")

"""The protocols that learn from labelled pictures, on vectors: vectors and classes in, numbers and what chose them out.

The penalty is chosen on validation rows or, of ridge, by leaving training rows out one at a time; the test rows are
looked at once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vlcli.errors import UsageError
from vlcli.evaluation.class_metrics import Parts, Statistic, Tally, mean_parts, numbers
from vlcli.evaluation.probes import few_shot, knn, linear, ridge
from vlcli.evaluation.probes.labelled import Labelled

Protocol = Literal["knn", "linear-probe", "ridge", "few-shot"]
PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear-probe", "ridge", "few-shot")
Found = tuple[Parts, dict[str, Any]]  # numbers to be computed, and what is said of how they came about


def probe(
    protocol: Protocol,
    train: Labelled,
    test: Labelled,
    classes: int,
    *,
    val: Labelled | None = None,
    metric: str = "top1",
    k: int = knn.VOTERS,
    l2: float | None = None,
    shots: int = 5,
    seeds: Sequence[int] = few_shot.SEEDS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The numbers of class_metrics.py for the test rows, of knn also `R@1`, `R@5`, `R@10`, their intervals under
    `ci95`, and under `probe` what was chosen by what.

    Raises UsageError where nothing can choose a penalty, and for few shots of images of several classes.
    """
    refuse_several(protocol, train.several)
    run: Mapping[str, Callable[[], Found]] = {
        "knn": lambda: _knn(train, test, classes, metric, k),
        "linear-probe": lambda: _linear(train, val, test, classes, metric, l2),
        "ridge": lambda: _ridge(train, val, test, classes, metric, l2),
        "few-shot": lambda: _few_shot(train, val, test, classes, metric, l2, shots, seeds),
    }
    parts, said = run[protocol]()
    return {**numbers(parts, len(test), bootstrap=bootstrap, seed=seed), "probe": said}


def refuse_several(protocol: Protocol, several: bool) -> None:
    """UsageError where images may be of several classes and the protocol is of one class each."""
    if several and protocol == "few-shot":
        raise UsageError(
            "few-shot draws so many rows of each class, and images of several classes are of none alone",
            remedy="--protocol linear-probe, ridge or knn",
        )


def _tally(head: linear.LinearHead, test: Labelled, classes: int, metric: str) -> Parts:
    tally = Tally(classes, metric)
    scores = head.scores(test.vectors)
    tally.add(scores.softmax(1) if metric == "map11" and not test.several else scores, test.labels)
    return tally.parts()


def _knn(train: Labelled, test: Labelled, classes: int, metric: str, k: int) -> Found:
    places, votes = knn.knn(train, test, classes, k=k)
    tally = Tally(classes, metric)
    # a class without a vote is no guess, whichever number it has
    tally.add(votes if metric == "map11" else votes.where(votes > 0, float("-inf")), test.labels)
    asked = [at for at in knn.RECALL_AT if at <= len(train)]
    hits = np.stack([places.numpy() <= at for at in asked]).astype(np.float64)  # (K, n)
    recall: Statistic = lambda weights: hits @ weights / weights.sum()  # noqa: E731
    parts = [(tuple(f"R@{at}" for at in asked), recall), *tally.parts()]
    return parts, {"k": k, "temperature": knn.TEMPERATURE}


def _linear(
    train: Labelled, val: Labelled | None, test: Labelled, classes: int, metric: str, l2: float | None
) -> Found:
    if val is None and l2 is None:
        raise UsageError(
            "a linear probe's penalty is chosen on rows that are neither trained nor tested on",
            remedy="name them with --val, or give the penalty with --l2",
        )
    if l2 is not None:
        found = linear.Probe(linear.fit(train if val is None else train.and_(val), classes, l2), l2, {})
    else:
        assert val is not None, "checked above"
        found = linear.linear_probe(train, val, classes)
    said = {
        "l2": found.l2,
        "chosen_on": "val" if l2 is None else "given",
        "fitted_on": "train" if val is None else "train+val",
        "iterations": linear.ITERATIONS,
        "tried": _percent(found.tried),
    }
    return _tally(found.head, test, classes, metric), said


def _ridge(
    train: Labelled, val: Labelled | None, test: Labelled, classes: int, metric: str, l2: float | None
) -> Found:
    tried: dict[float, float] = {}
    chosen = l2
    if chosen is None:
        _, chosen, tried = ridge.choose(train, classes, val)
    rows = train if val is None else train.and_(val)
    head = ridge.Ridge(rows, classes).head(chosen)
    by = "given" if l2 is not None else "leaving one out" if val is None else "val"
    fitted = "train" if val is None else "train+val"
    said = {"l2": chosen, "chosen_on": by, "fitted_on": fitted, "tried": _percent(tried)}
    return _tally(head, test, classes, metric), said


def _few_shot(
    train: Labelled,
    val: Labelled | None,
    test: Labelled,
    classes: int,
    metric: str,
    l2: float | None,
    shots: int,
    seeds: Sequence[int],
) -> Found:
    if shots == 1 and val is None and l2 is None:
        raise UsageError(
            "one shot a class leaves none to choose the penalty by",
            remedy="name rows with --val, or give --l2",
        )
    tests, penalties = [], []
    for seed in seeds:
        few = train.rows(few_shot.draw(train.labels, classes, shots, seed))
        if l2 is not None:
            head, penalty = ridge.Ridge(few, classes).head(l2), l2
        else:
            head, penalty, _ = ridge.choose(few, classes, val)
        tests.append(_tally(head, test, classes, metric))
        penalties.append(penalty)
    ones = np.ones(len(test))
    names = [name for some, _ in tests[0] for name in some]
    each = 100 * np.array(
        [np.concatenate([one(ones) for _, one in parts]) for parts in tests]
    )  # (seeds, numbers)
    deviation = each.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(len(names))
    said = {
        "head": "ridge",
        "shots": shots,
        "seeds": list(seeds),
        "l2": penalties,
        "chosen_on": "given" if l2 is not None else "leaving one out" if val is None else "val",
        "each": [dict(zip(names, line, strict=True)) for line in np.round(each, 4).tolist()],
        "sd": dict(zip(names, np.round(deviation, 4).tolist(), strict=True)),
    }
    return mean_parts(tests), said


def _percent(tried: Mapping[float, float]) -> list[list[float]]:
    """[λ, `LinearHead.score` in percent] of all that was tried."""
    return [[l2, round(100 * share, 4)] for l2, share in sorted(tried.items())]

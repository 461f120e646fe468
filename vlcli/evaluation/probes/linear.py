"""The linear probe: multinomial logistic regression by L-BFGS, its penalty searched as CLIP does.

CLIP (Radford et al. 2021, arXiv 2103.00020, App. A.3): scikit-learn's L-BFGS with at most 1,000 iterations on features
that are not normalised; the penalty λ is one of 96 logarithmic steps of 1e-6 … 1e6, found on the validation set by
starting from 1e-6, 1e-4, …, 1e6 and halving the interval around the best down to 8 steps a decade; then the probe
learns from training and validation set together.

The objective is scikit-learn's LogisticRegression(C=1/λ): Σ cross-entropy + λ/2·‖W‖², the bias not penalised. Where
images are of several classes (VOC 2007), each class is such a problem of its own, its images against the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlcli.errors import InputError
from vlcli.evaluation.probes.labelled import Labelled, LinearHead, blocks

STEPS = 96
DECADES = 12
ITERATIONS = 1000
GRADIENT = 1e-4  # of the mean loss in the coordinates of `Shape`, where it is done


def penalty(step: int) -> float:
    """λ of step 0 … 96."""
    return float(10.0 ** (step * DECADES / STEPS - DECADES / 2))


class Shape(NamedTuple):
    """Where the training vectors lie and how far they spread in which direction: coordinates in which the minimum is
    found in tens of steps, not in hundreds. They change neither the objective nor its minimum: penalties do not see a
    rotation, and what moving the origin changes, the bias takes up.
    """

    mean: Tensor  # (d,)
    basis: Tensor  # (d, d), a direction a column
    variance: Tensor  # (d,)

    @classmethod
    def of(cls, vectors: Tensor) -> Shape:
        n, d = vectors.shape
        mean, square = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
        for _, block in blocks(vectors):
            mean += block.sum(0) / n
        for _, block in blocks(vectors):
            square.addmm_((block - mean).T, block - mean, alpha=1 / n)
        variance, basis = torch.linalg.eigh(square)
        return cls(mean, basis, variance.clamp_min(0))


def fit(
    data: Labelled,
    classes: int,
    l2: float,
    *,
    iterations: int = ITERATIONS,
    shape: Shape | None = None,
    start: LinearHead | None = None,
    tolerance: float = GRADIENT,
) -> LinearHead:
    """The head that minimises the objective of this module for λ = `l2`, in float64.

    Classes without a row get a bias of −∞, as scikit-learn does not know them. `start` is where the search begins
    (zeros when none) and `shape` that of the data, where it is known; the minimum is one whatever they are. InputError
    when fewer than two classes have rows.
    """
    if data.several:
        return _fit_each(data, l2, iterations=iterations, shape=shape, start=start, tolerance=tolerance)
    present = torch.unique(data.labels)
    if len(present) < 2:
        raise InputError("a linear probe needs two classes: the training rows show fewer")
    place = torch.full((classes,), -1)
    place[present] = torch.arange(len(present))
    labels = place[data.labels]
    n, d, c = len(data), data.vectors.shape[1], len(present)
    # scikit-learn has one vector for two classes, whose norm counts half as much in two opposite ones.
    weigh = l2 * (2 if c == 2 else 1) / n
    mean, basis, variance = Shape.of(data.vectors) if shape is None else shape
    curve = (c - 1) / c**2  # of the cross-entropy where all classes are as likely
    unit = 1 / (curve * variance + weigh).sqrt()  # (d,)
    into = basis * unit  # θ of all weights → weights: θ @ into.T

    theta = torch.zeros(c, d + 1, dtype=torch.float64)
    if start is not None:
        weight, bias = start.weight[present], start.bias[present]
        theta[:, :d] = weight @ basis / unit
        theta[:, d] = (bias + weight @ mean) * curve**0.5

    def head() -> tuple[Tensor, Tensor]:
        weight = theta[:, :d] @ into.T
        return weight, theta[:, d] / curve**0.5 - weight @ mean

    def objective() -> Tensor:
        weight, bias = head()
        loss = 0.5 * weigh * weight.square().sum()
        by_weight, by_bias = weigh * weight, torch.zeros(c, dtype=torch.float64)
        for part, block in blocks(data.vectors, max(d, c)):
            logits = torch.addmm(bias, block, weight.T)
            truth = labels[part, None]
            log_total = logits.logsumexp(1, keepdim=True)
            loss = loss + (log_total - logits.gather(1, truth)).sum() / n
            share = (logits - log_total).exp_()
            share.scatter_add_(1, truth, torch.full_like(log_total, -1.0))
            by_weight.addmm_(share.T, block, alpha=1 / n)
            by_bias += share.sum(0) / n
        # the bias of the objective holds −weight @ mean
        along = (by_weight - by_bias[:, None] * mean) @ into
        theta.grad = torch.cat([along, by_bias[:, None] / curve**0.5], 1)
        return loss

    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(objective)
    weight = torch.zeros(classes, d, dtype=torch.float64)
    bias = torch.full((classes,), -torch.inf, dtype=torch.float64)
    weight[present], bias[present] = head()
    return LinearHead(weight, bias)


def _fit_each(
    data: Labelled, l2: float, *, shape: Shape | None, start: LinearHead | None, **how: Any
) -> LinearHead:
    """Each class against the rest, by the rows that count for it. A class without a row is never answered, and one that
    every row is of tells none from another."""
    n, classes = data.labels.shape
    weight = torch.zeros(classes, data.vectors.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), -torch.inf, dtype=torch.float64)
    shape = shape or Shape.of(data.vectors)
    for c in range(classes):
        counted = data.labels[:, c] >= 0
        own = Labelled(data.vectors[counted], (data.labels[counted, c] > 0).long())
        positive = int(own.labels.sum())
        if positive in (0, len(own)):
            bias[c] = 0.0 if positive else -torch.inf
            continue
        begin = None
        if start is not None and torch.isfinite(start.bias[c]):
            halves = torch.tensor([-0.5, 0.5], dtype=torch.float64)
            begin = LinearHead(halves[:, None] * start.weight[c], halves * start.bias[c])
        two = fit(own, 2, l2, shape=shape if len(own) == n else None, start=begin, **how)
        weight[c], bias[c] = two.weight[1] - two.weight[0], two.bias[1] - two.bias[0]
    return LinearHead(weight, bias)


class Probe(NamedTuple):
    """A head, the penalty it was fitted with, and what every penalty that was tried came to on the validation rows."""

    head: LinearHead
    l2: float
    tried: dict[float, float]  # λ → `LinearHead.score`


def search(train: Labelled, val: Labelled, classes: int, *, iterations: int = ITERATIONS) -> Probe:
    """CLIP's search; the head is that of the training rows alone. Of equally good penalties the largest wins."""
    shape = Shape.of(train.vectors)
    heads: dict[int, LinearHead] = {}
    score: dict[int, float] = {}

    def visit(step: int) -> None:
        if 0 <= step <= STEPS and step not in score:
            near = min(heads, key=lambda other: abs(other - step), default=None)
            start = None if near is None else heads[near]
            heads[step] = fit(train, classes, penalty(step), iterations=iterations, shape=shape, start=start)
            score[step] = heads[step].score(val)

    def best() -> int:
        return max(score, key=lambda step: (score[step], step))

    width = STEPS // 6
    for step in range(
        STEPS, -1, -width
    ):  # the strongest penalty first: its fit is quick, and a start for the next
        visit(step)
    while width > 1:
        width //= 2
        middle = best()
        visit(middle - width)
        visit(middle + width)
    chosen = best()
    return Probe(heads[chosen], penalty(chosen), {penalty(step): score[step] for step in sorted(score)})


def linear_probe(
    train: Labelled,
    val: Labelled,
    classes: int,
    *,
    l2: float | None = None,
    iterations: int = ITERATIONS,
) -> Probe:
    """The published protocol: `search` on `val`, then a fit of both with what was chosen, or with a given `l2`."""
    tried: dict[float, float] = {}
    if l2 is None:
        found = search(train, val, classes, iterations=iterations)
        l2, tried = found.l2, found.tried
    return Probe(fit(train.and_(val), classes, l2, iterations=iterations), l2, tried)

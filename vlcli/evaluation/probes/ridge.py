"""Ridge regression onto the classes: a closed form for every penalty, from one decomposition.

As big_vision's few-shot evaluator: columns are brought to mean 0 and variance 1 by the training rows, each class is
a column of 0 and 1 (an image of several classes has several 1), and argmax answers. The intercept is not penalised.
With X = UΣVᵀ (n, d), which an eigen-decomposition of XᵀX or XXᵀ (the smaller) gives, W(l2) = V (Σ²+l2)⁻¹ ΣUᵀ Y; the
residual of a row that is left out is its residual over 1 − h, h the row's own weight in its prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlcli.evaluation.probes.labelled import Labelled, LinearHead, blocks, precision

PENALTIES = tuple(2.0**power for power in range(-10, 20))  # big_vision's


class Ridge:
    """The decomposition of the training rows; `head(l2)` is a matrix product away."""

    def __init__(self, train: Labelled, classes: int) -> None:
        n, d = train.vectors.shape
        self.train, self.classes = train, classes
        self.mean = sum((block.sum(0) for _, block in blocks(train.vectors)), torch.zeros(d).double()) / n
        square = sum(
            ((block - self.mean).square().sum(0) for _, block in blocks(train.vectors)), 0 * self.mean
        )
        deviation = (square / n).sqrt()
        self.scale = torch.where(
            deviation > 1e-12 * (1 + self.mean.abs()), deviation, torch.ones_like(deviation)
        )
        labels = train.labels
        count = (labels > 0).sum(0) if train.several else torch.bincount(labels, minlength=classes)
        self.share = count.double() / n  # the mean of the targets
        if n >= d:
            gram = torch.zeros(d, d, dtype=torch.float64)
            target = torch.zeros(d, classes, dtype=torch.float64)
            for part, block in blocks(train.vectors):
                x = self._standard(block)
                gram.addmm_(x.T, x)
                if train.several:
                    target.addmm_(x.T, self._targets(part))
                else:
                    target.index_add_(1, train.labels[part], x.T.contiguous())
            self.values, self.basis = torch.linalg.eigh(gram)  # basis (d, d): V
            self.target = self.basis.T @ target  # VᵀXᵀY; XᵀY needs no centring of Y, X being centred
        else:
            x = self._standard(train.vectors.double())
            self.values, left = torch.linalg.eigh(x @ x.T)
            y = self._targets(slice(None)) - self.share
            self.basis = x.T @ left  # (d, n): VΣ, whose inverse of Σ² the values below carry
            self.target = left.T @ y
        self.wide = n < d
        self.values = self.values.clamp_min(0)

    def _standard(self, block: Tensor) -> Tensor:
        return (block - self.mean) / self.scale

    def _targets(self, rows: slice) -> Tensor:
        """(b, classes) of 0 and 1."""
        labels = self.train.labels[rows]
        hot = labels > 0 if self.train.several else torch.nn.functional.one_hot(labels, self.classes)
        return hot.double()

    def head(self, l2: float) -> LinearHead:
        """Weights and bias for vectors as they come."""
        weight = (self.basis @ (self.target / (self.values + l2)[:, None]) / self.scale[:, None]).T
        return LinearHead(weight, self.share - weight @ self.mean)

    def leave_one_out(self, l2: float) -> float:
        """The share of training rows that the regression on all others names right (the scaling is that of all), or the
        11-point mAP of what it says of them."""
        n, right, said = len(self.train), 0, []
        head = self.head(l2)
        for part, block in blocks(self.train.vectors, max(self.classes, self.train.vectors.shape[1])):
            projected = self._standard(block) @ self.basis  # XV, or XVΣ = UΣ²
            divisor = (
                self.values + l2 if not self.wide else self.values.clamp_min(1e-300) * (self.values + l2)
            )
            own = 1 / n + (projected.square() / divisor).sum(1)
            truth = self._targets(part)
            residual = truth - (block @ head.weight.T + head.bias)
            without = truth - residual / (1 - own).clamp_min(1e-12)[:, None]
            if self.train.several:
                said.append(without)
            else:
                right += int((without.argmax(1) == self.train.labels[part]).sum())
        return precision(torch.cat(said), self.train.labels) if self.train.several else right / n


def choose(
    train: Labelled, classes: int, val: Labelled | None = None, penalties: Sequence[float] = PENALTIES
) -> tuple[LinearHead, float, dict[float, float]]:
    """The head of the best penalty, that penalty, and the score of each, on `val`, or leaving one training row out at
    a time where there is none. Of equally good penalties the largest wins.
    """
    ridge = Ridge(train, classes)
    tried = {
        l2: ridge.head(l2).score(val) if val is not None else ridge.leave_one_out(l2) for l2 in penalties
    }
    best = max(tried, key=lambda l2: (tried[l2], l2))
    return ridge.head(best), best, tried

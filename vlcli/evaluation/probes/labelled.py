"""Vectors with their classes: what every probe reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlcli.evaluation.class_metrics import mean_precision

BLOCK = 1 << 22  # numbers of a block of float64: 32 MiB


class Labelled(NamedTuple):
    """`vectors` (n, d) float32 and `labels` (n,) int64, each a place among the classes; or, of images of several
    classes, (n, classes) int8 (see `Truth`)."""

    vectors: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def several(self) -> bool:
        """Whether an image may be of several classes."""
        return self.labels.dim() == 2

    def rows(self, index: Tensor) -> Labelled:
        return Labelled(self.vectors[index], self.labels[index])

    def and_(self, other: Labelled) -> Labelled:
        """The rows of both."""
        return Labelled(torch.cat([self.vectors, other.vectors]), torch.cat([self.labels, other.labels]))


def blocks(vectors: Tensor, width: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """A few rows at a time in float64, so that no copy of all is made. `width`: numbers that a row leads to."""
    step = max(1, BLOCK // max(1, width or vectors.shape[1]))
    for start in range(0, len(vectors), step):
        part = slice(start, min(start + step, len(vectors)))
        yield part, vectors[part].double()


class LinearHead(NamedTuple):
    """`weight` (classes, d) and `bias` (classes,) float64. A class that was not there to learn has the bias −∞."""

    weight: Tensor
    bias: Tensor

    def scores(self, vectors: Tensor) -> Tensor:
        """(n, d) → (n, classes) float64."""
        parts = [block @ self.weight.T + self.bias for _, block in blocks(vectors)]
        return torch.cat(parts) if parts else torch.empty(0, len(self.bias), dtype=torch.float64)

    def top1(self, data: Labelled) -> float:
        """The share of right answers."""
        right = 0
        for part, block in blocks(data.vectors):
            answer = (block @ self.weight.T + self.bias).argmax(1)
            right += int((answer == data.labels[part]).sum())
        return right / len(data)

    def score(self, data: Labelled) -> float:
        """What penalties are chosen by: `top1`, or of images of several classes the 11-point mAP, as a share."""
        return precision(self.scores(data.vectors), data.labels) if data.several else self.top1(data)


def precision(scores: Tensor, labels: Tensor) -> float:
    """The 11-point mAP of scores and labels (n, classes), as a share."""
    return float(mean_precision(scores.double().numpy(), labels.numpy())(np.ones(len(labels)))[0])

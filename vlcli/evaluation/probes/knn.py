"""Nearest neighbours by the cosine: ALIGN's recall of the label, and DINO's weighted vote.

ALIGN [A §6, footnote]: each validation image retrieves its nearest training images by the image encoder; a hit at K
when its label is among the labels of the K. DINO (Caron et al. 2021, arXiv 2104.14294, App. F.1; K = 20, T = 0.07):
each of the K neighbours votes for its class with exp(cosine / T). Of images of several classes a neighbour that shares
one is a hit, and it votes for all of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.evaluation.probes.labelled import Labelled

VOTERS = 20
TEMPERATURE = 0.07
RECALL_AT = (1, 5, 10)
BLOCK = 1 << 25  # similarities of a block: 128 MiB


class Neighbours(NamedTuple):
    """The k nearest of each query, nearest first; of equally near ones that which stands first in the training set."""

    similarity: Tensor  # (n, k) float32
    rows: Tensor  # (n, k) int64, of the training set

    def first(self, k: int) -> Neighbours:
        return Neighbours(self.similarity[:, :k], self.rows[:, :k])


def neighbours(train: Tensor, queries: Tensor, k: int) -> Neighbours:
    """By the cosine of train (m, d) and queries (n, d). UsageError for k > m."""
    if not 1 <= k <= len(train):
        raise UsageError(f"{k} neighbours of {len(train)} training images", remedy="ask for fewer, with --k")
    train, queries = F.normalize(train.float(), dim=1), F.normalize(queries.float(), dim=1)
    found = [_nearest(block @ train.T, k) for block in queries.split(max(1, BLOCK // len(train)))]
    return Neighbours(*(torch.cat(part) for part in zip(*found, strict=True)))


def _nearest(similarity: Tensor, k: int) -> Neighbours:
    best, index = similarity.topk(k, dim=1)
    # Where more than k are as near as the last, or two are equally near, topk takes whichever.
    least = best[:, -1:]
    tied = (best[:, 1:] == best[:, :-1]).any(1) | ((similarity >= least).sum(1) > k)
    if tied.any():
        order = similarity[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
        index[tied] = order
        best[tied] = similarity[tied].gather(1, order)
    return Neighbours(best, index)


def recall_places(found: Neighbours, train_labels: Tensor, labels: Tensor) -> Tensor:
    """(n,) the place, from 1, of the nearest neighbour with the query's label; k + 1 where none has it. Labels (m,) and
    (n,), or (m, classes) and (n, classes)."""
    if labels.dim() == 1:
        hit = train_labels[found.rows] == labels[:, None]
    else:
        hit = torch.stack([((train_labels[at] > 0) & (labels > 0)).any(1) for at in found.rows.T], 1)
    place = hit.int().argmax(1) + 1
    return torch.where(hit.any(1), place, hit.shape[1] + 1)


def vote(
    found: Neighbours, train_labels: Tensor, classes: int, *, temperature: float = TEMPERATURE
) -> Tensor:
    """(n, classes) float64 scores: the sum over a class's neighbours of exp(cosine / temperature), as a share of that
    over all neighbours. train_labels (m,), or (m, classes)."""
    weight = (
        (found.similarity.double() - 1) / temperature
    ).exp()  # −1: shares are the same, and nothing overflows
    scores = torch.zeros(len(weight), classes, dtype=torch.float64)
    if train_labels.dim() == 1:
        scores.scatter_add_(1, train_labels[found.rows], weight)
    else:
        for at, each in zip(found.rows.T, weight.T, strict=True):
            scores += each[:, None] * (train_labels[at] > 0)
    return scores / weight.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def knn(
    train: Labelled, queries: Labelled, classes: int, *, k: int = VOTERS, temperature: float = TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """`recall_places` among the 10 nearest (or `k`, if that is more), and `vote` of the `k` nearest."""
    most = min(len(train), max(k, max(RECALL_AT)))
    found = neighbours(train.vectors, queries.vectors, max(k, most))
    places = recall_places(found, train.labels, queries.labels)
    return places, vote(found.first(k), train.labels, classes, temperature=temperature)

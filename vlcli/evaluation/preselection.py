"""Late interaction on a large set: vectors choose K candidates of every query, and the exact similarity ranks these.

A token-wise model's vector of a picture or a text is the mean of its tokens, brought to length 1 (vectors.py). Its
product costs a token where the similarity costs n1 · n2, and an index of vectors can be asked for it; what it misses
no later step brings back. That loss is measured: the same queries by all exact similarities stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.evaluation.ranking import top
from vlcli.evaluation.retrieval import TIE, Ranks, ranks, recalls_of
from vlcli.evaluation.vectors import image_vectors, text_vectors
from vlcli.objectives.late_interaction import global_similarity

if TYPE_CHECKING:
    from vlcli.evaluation.retrieval import SimilarityFunction


class Pooled(NamedTuple):
    """One vector (n, d) a picture or text, as features of a global model."""

    tokens: None
    pooled: Tensor

    def rows(self, index: Any) -> Pooled:
        return Pooled(None, self.pooled[index])


def by_vector(images: Any, texts: Any) -> Any:
    """The cosines, as a similarity."""
    return global_similarity(images.pooled, texts.pooled)


def refuse_exact(model: Any) -> None:
    """UsageError for a global model, whose vectors are all there is."""
    if model.similarity_kind == "global":
        raise UsageError("--preselect spares token-wise similarities, and this checkpoint's are of vectors")


def pooled(model: Any, images: Any, texts: Any) -> tuple[Any, Any]:
    """The vectors of encoded pictures and texts."""
    return Pooled(None, image_vectors(images)), Pooled(None, text_vectors(texts, model.config))


def preselected(
    similarity: SimilarityFunction,
    images: Any,
    texts: Any,
    vectors: tuple[Any, Any],
    positives: Sequence[AbstractSet[int]],
    *,
    k: int,
) -> Ranks:
    """Ranks of the best positives where the exact similarity has seen the `k` candidates nearest by vector alone.

    A query none of whose positives is among them keeps its rank by vector: all k stand before it. Ties are pessimistic,
    as everywhere (retrieval.py).
    """
    by_vectors = ranks(by_vector, *vectors, positives)
    shown: list[set[int]] = [set() for _ in range(len(by_vectors.t2i))]
    for i, columns in enumerate(positives):
        for j in columns:
            shown[j].add(i)
    return Ranks(
        _side(similarity, images, texts, vectors, positives, by_vectors.i2t, k, "i2t"),
        _side(similarity, images, texts, vectors, shown, by_vectors.t2i, k, "t2i"),
    )


def _side(
    similarity: SimilarityFunction,
    images: Any,
    texts: Any,
    vectors: tuple[Any, Any],
    right: Sequence[AbstractSet[int]],
    before: Any,
    k: int,
    direction: Literal["i2t", "t2i"],
) -> Any:
    found = before.copy()
    for one in top(by_vector, *vectors, k=k, direction=direction):
        good = np.isin(one.candidates, list(right[one.query]))
        if not good.any():
            continue
        own, others = torch.tensor([one.query]), torch.tensor(one.candidates)
        if direction == "i2t":
            scores = similarity(images.rows(own), texts.rows(others)).i2t[0]
        else:
            scores = similarity(images.rows(others), texts.rows(own)).t2i[:, 0]
        values = scores.detach().float().cpu().numpy()
        found[one.query] = 1 + int((values[~good] >= values[good].max() - TIE).sum())
    return found


def loss_of_recall(exact: Ranks, found: Ranks, k: int) -> dict[str, Any]:
    """{"k", "i2t", "t2i", "MR", "lost": {"i2t", "t2i", "MR"}}: recalls in percent after preselection, and how many
    points fewer they are than without."""
    whole, kept = recalls_of(exact), recalls_of(found)

    def fewer(side: str) -> Any:
        if whole[side] is None:
            return None
        if side == "MR":
            return round(whole[side] - kept[side], 4)
        return {name: round(value - kept[side][name], 4) for name, value in whole[side].items()}

    return {"k": k, **kept, "lost": {side: fewer(side) for side in kept}}

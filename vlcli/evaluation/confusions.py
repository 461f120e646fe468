"""The queries that retrieval ranks worst, and what it takes for their answer."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vlcli.evaluation.ranking import top

if TYPE_CHECKING:
    from vlcli.evaluation.retrieval import Ranks, SimilarityFunction


class Confusion(NamedTuple):
    """A query and the rank of its best positive; that positive and its score; the best candidates of all and theirs."""

    query: int
    rank: int
    positive: int
    score: float
    candidates: list[int]
    scores: list[float]


def worst(
    similarity: SimilarityFunction,
    images: Any,
    texts: Any,
    positives: Sequence[AbstractSet[int]],
    found: Ranks,
    *,
    direction: Literal["i2t", "t2i"],
    count: int,
    k: int,
) -> list[Confusion]:
    """At most `count` queries with a rank beyond 1, the worst first and among equals the earlier; each with its `k`
    best candidates. `positives[i]` are the texts of image i."""
    ranks = (found.i2t if direction == "i2t" else found.t2i).tolist()
    chosen = sorted((q for q, rank in enumerate(ranks) if rank > 1), key=lambda q: (-ranks[q], q))[:count]
    if not chosen:
        return []
    right: dict[int, list[int]] = {q: [] for q in chosen}
    for image, shown in enumerate(positives):
        for text in shown:
            query, answer = (image, text) if direction == "i2t" else (text, image)
            if query in right:
                right[query].append(answer)
    asked = (images.rows(chosen), texts) if direction == "i2t" else (images, texts.rows(chosen))
    confusions = []
    for query, best in zip(chosen, top(similarity, *asked, k=k, direction=direction), strict=True):
        answers = sorted(right[query])
        if direction == "i2t":
            scores = similarity(images.rows([query]), texts.rows(answers)).i2t[0]
        else:
            scores = similarity(images.rows(answers), texts.rows([query])).t2i[:, 0]
        place = int(scores.argmax())
        confusions.append(
            Confusion(
                query,
                ranks[query],
                answers[place],
                round(float(scores[place]), 6),
                best.candidates,
                best.scores,
            )
        )
    return confusions

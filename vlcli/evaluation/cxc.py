"""CxC [A Tables 2 and 3]: retrieval within and across texts and images, and correlation with people's ratings.

Positives are MS-COCO's own pairs (of texts: those of one image) and whatever pair people rated 3 or more: how ALIGN's
"several positives" is read here. Nothing retrieves itself. What has no positive is a candidate and no query: of the
images, those that no other was rated like. Texts and images are the distinct ones, as everywhere in `retrieve`.

Text beside text and image beside image are compared by one vector each, which of a token-wise or reduced model is the
mean of its tokens; text and image by the model's own similarity, of the image (the query) to the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlcli.datasets.cxc import Rated, Ratings
from vlcli.errors import UsageError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.correlation import Correlation, resampled
from vlcli.evaluation.describe import describe
from vlcli.evaluation.feature_cache import FeatureCache
from vlcli.evaluation.metrics import RECALL_AT, mean_recall, recall_hits, recalls
from vlcli.evaluation.retrieval import ranks, rows_of, tiles
from vlcli.evaluation.tasks import Announce, Retrieval, silent
from vlcli.evaluation.vectors import TOKENS, image_vectors, text_vectors
from vlcli.text.prompts import PromptSet

POSITIVE = 3.0  # the rating from which on a pair belongs together
ITSELF = -2.0  # a similarity below every cosine

# A rated pair by the numbers of its ends in the gallery.
Pairs = list[tuple[int, int, float]]


class _Vectors(NamedTuple):
    """(n, d) vectors of length 1 that know their number, as `ranks` takes them."""

    pooled: Tensor
    numbers: Tensor

    @property
    def tokens(self) -> None:
        return None

    def rows(self, index: Any) -> _Vectors:
        return _Vectors(self.pooled[index], self.numbers[index])


class _Scores(NamedTuple):
    i2t: Tensor
    t2i: Tensor


def _of_others(left: Any, right: Any) -> _Scores:
    """Cosines, and ITSELF where both sides are one thing."""
    score = left.pooled @ right.pooled.T
    score = score.masked_fill(left.numbers[:, None] == right.numbers[None, :], ITSELF)
    return _Scores(score, score)


def evaluate(
    model: Any,
    table: Any,
    ratings: Ratings,
    prompts: PromptSet,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    announce: Announce = silent,
) -> dict[str, Any]:
    """{…, "i2t", "t2i", "t2t", "i2i", "MR", "queries", "correlation": {"STS", "SIS", "SITS", "mean"}, "ci95"}.

    `table` has a row for each caption, whose id the ratings name. Intervals draw images with their captions; rated
    pairs of two images join no units, for nearly all hang together. `bootstrap` is also how many resamples the
    correlations have.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "cache": cache}
    task = Retrieval(model, table, prompts, announce=announce, **options)
    gallery = task.gallery
    image_numbers = {name: i for i, name in enumerate(gallery.image_ids)}
    text_numbers = {text: j for j, text in enumerate(gallery.texts)}
    of_caption = {
        name: text_numbers[unicodedata.normalize("NFC", said[0])]
        for name, said in zip(table.ids, table.texts, strict=True)
        if said
    }
    sts = _numbered(ratings.sts, of_caption, of_caption)
    sis = _numbered(ratings.sis, image_numbers, image_numbers)
    sits = _numbered(ratings.sits, of_caption, image_numbers)

    shown: list[set[int]] = [set(texts) for texts in gallery.positives]
    beside: list[set[int]] = [set() for _ in gallery.texts]
    for texts in gallery.positives:
        for text in texts:
            beside[text] |= texts
    for text, image, score in sits:
        if score >= POSITIVE:
            shown[image].add(text)
    alike: list[set[int]] = [set() for _ in gallery.image_ids]
    for pairs, positives in ((sts, beside), (sis, alike)):
        for a, b, score in pairs:
            if score >= POSITIVE:
                positives[a].add(b)
                positives[b].add(a)
    for positives in (beside, alike):
        for number, others in enumerate(positives):
            others.discard(number)

    images, texts_ = _chunked(image_vectors, task.images), _chunked(text_vectors, task.texts, model.config)
    across = ranks(task.similarity, task.images, task.texts, shown)
    found = {"i2t": across.i2t, "t2i": across.t2i}
    found["t2t"] = ranks(_of_others, texts_, texts_, beside).i2t  # type: ignore[arg-type]
    found["i2i"] = ranks(_of_others, images, images, alike).i2t  # type: ignore[arg-type]
    for side, rank in found.items():
        if not rank.any():
            raise UsageError(f"no query of {side} has a positive: these are no whole files of CxC")
    unit_of_text = np.zeros(len(gallery.texts), np.int64)
    for image in range(len(gallery.image_ids) - 1, -1, -1):  # a text of several images goes with the first
        unit_of_text[list(gallery.positives[image])] = image
    sides = {side: recalls(rank[rank > 0]) for side, rank in found.items()}
    correlation = {
        "STS": _both_ends(sts, _cosines(texts_, texts_, sts), bootstrap, seed),
        "SIS": _both_ends(sis, _cosines(images, images, sis), bootstrap, seed),
        "SITS": _by_image(sits, _similarities(task, sits), bootstrap, seed),
    }
    means = [one.mean for one in correlation.values()]
    return {
        **describe(model, table, gallery.texts),
        "prompts": prompts.name,
        "vectors": "pooled" if model.similarity_kind == "global" else TOKENS,
        "positives": f"MS-COCO's, and rated >= {POSITIVE:g}",
        "images": len(gallery.image_ids),
        "texts": len(gallery.texts),
        **sides,
        "MR": mean_recall(*sides.values()),
        "queries": {side: int((rank > 0).sum()) for side, rank in found.items()},
        "correlation": {
            **{kind: one.as_dict() for kind, one in correlation.items()},
            "mean": round(sum(means) / len(means), 4),
        },
        "ci95": _intervals(found, unit_of_text, len(gallery.image_ids), bootstrap, seed),
    }


def _numbered(rated: Sequence[Rated], left: dict[str, int], right: dict[str, int]) -> Pairs:
    return [(left[one.left], right[one.right], one.score) for one in rated]


def _chunked(vectors: Any, features: Any, *more: Any) -> _Vectors:
    """Vectors of features that may be too many to be taken at once."""
    n = rows_of(features)
    parts = [vectors(features.rows(part), *more) for part in tiles(n, 1024)]
    return _Vectors(torch.cat(parts), torch.arange(n))


def _cosines(left: _Vectors, right: _Vectors, pairs: Pairs) -> np.ndarray:
    """(pairs,) cosines."""
    values = np.empty(len(pairs))
    for part in tiles(len(pairs), 4096):
        a, b = (torch.tensor([pair[end] for pair in pairs[part]]) for end in (0, 1))
        values[part] = (left.pooled[a] * right.pooled[b]).sum(1)
    return values


def _similarities(task: Retrieval, sits: Pairs) -> np.ndarray:
    """(pairs,) similarities of each image to the text that it was rated with."""
    of_image: dict[int, list[int]] = {}
    for place, (_, image, _) in enumerate(sits):
        of_image.setdefault(image, []).append(place)
    values = np.empty(len(sits))
    for image, places in of_image.items():
        texts = torch.tensor([sits[place][0] for place in places])
        score = task.similarity(task.images.rows(slice(image, image + 1)), task.texts.rows(texts))
        values[places] = score.i2t[0]
    return values


def _both_ends(pairs: Pairs, similarities: np.ndarray, count: int, seed: int) -> Correlation:
    left, right, scores = (np.array(column) for column in zip(*pairs, strict=True))
    return resampled(similarities, scores, left, right, count=count, seed=seed)


def _by_image(pairs: Pairs, similarities: np.ndarray, count: int, seed: int) -> Correlation:
    _, image, scores = (np.array(column) for column in zip(*pairs, strict=True))
    return resampled(similarities, scores, image, count=count, seed=seed)


def _intervals(
    found: dict[str, Any], unit_of_text: np.ndarray, images: int, count: int, seed: int
) -> dict[str, Any]:
    """95 % intervals of the recalls of each side, drawing images with their captions."""
    if images < 2 or count < 1:
        return {}
    hits, asked = [], []
    for side, rank in found.items():
        unit = unit_of_text if side.startswith("t") else np.arange(images)
        query = rank > 0
        one = recall_hits(rank[query])
        hits.append(np.stack([np.bincount(unit[query], one[:, k], images) for k in range(len(RECALL_AT))]))
        asked.append(np.bincount(unit[query], minlength=images))

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            values = [100 * (h @ weights) / (a @ weights) for h, a in zip(hits, asked, strict=True)]
        return np.append(np.concatenate(values), np.mean(values))

    bounds = interval(statistic, images, count=count, seed=seed)
    names = [f"R@{k}" for k in RECALL_AT]
    sides = {side: dict(zip(names, bounds[s * len(names) :], strict=False)) for s, side in enumerate(found)}
    return {**sides, "MR": bounds[-1]}

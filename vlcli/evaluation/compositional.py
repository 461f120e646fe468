"""Do captions of nearly the same words make a difference? Text, image and group score (Thrush et al. 2022, Winoground).

Text score: each image fits its own caption better than the other one. Image score: each caption fits its own image
better. Group score: both. A tie is not better. Of one image with a right caption and wrong ones (SugarCrepe, ARO) there
is the text score alone. A token-wise model answers the first by image→text, the second by text→image similarities.

Where two captions are the same bag of words, nothing that disregards their order can tell them apart: what such a
model can reach at best is printed beside the scores.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.compositional_sets import Cases
from vlcli.evaluation.embed import embed_images, embed_texts, similarity_of
from vlcli.evaluation.metrics import percent
from vlcli.evaluation.tasks import Announce, silent

BLOCK = 32  # cases whose similarities are computed at once
_WORD = re.compile(r"\w+")


def same_words(one: str, other: str) -> bool:
    """Whether two captions are the same bag of words, whatever their order, case and punctuation."""
    return Counter(_WORD.findall(one.lower())) == Counter(_WORD.findall(other.lower()))


class Scores(NamedTuple):
    """`i2t[n, i, j]` and `t2i[n, i, j]` are of image i and caption j of case n; a single image stands twice, and the
    last caption of a case that has fewer than others as often as it takes."""

    i2t: npt.NDArray[np.float64]
    t2i: npt.NDArray[np.float64]


def case_scores(
    model: Any, cases: Cases, *, batch_size: int = 64, precision: str = "fp32", announce: Announce = silent
) -> Scores:
    """(cases, 2, captions) similarities of each case's images and captions."""
    options: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
    texts = list(dict.fromkeys(caption for case in cases.cases for caption in case.captions))
    place = {text: j for j, text in enumerate(texts)}
    images = embed_images(model, cases, progress=announce("images", len(cases)), **options)
    captions = embed_texts(model, texts, progress=announce("texts", len(texts)), **options)
    similarity = similarity_of(model)
    i = torch.tensor([(case.images[0], case.images[-1]) for case in cases.cases])  # (n, 2)
    most = max(len(case.captions) for case in cases.cases)
    j = torch.tensor(
        [
            [place[caption] for caption in case.captions]
            + [place[case.captions[-1]]] * (most - len(case.captions))
            for case in cases.cases
        ]
    )
    parts = []
    for rows, columns in zip(i.split(BLOCK), j.split(BLOCK), strict=True):
        found = similarity(images.rows(rows.flatten()), captions.rows(columns.flatten()))
        own = torch.arange(len(rows))
        parts.append(
            [
                side.view(len(rows), 2, len(rows), most)[own, :, own].double().numpy()
                for side in (found.i2t, found.t2i)
            ]
        )
    return Scores(*(np.concatenate([part[k] for part in parts]) for k in (0, 1)))


def hits(scores: Scores) -> dict[str, npt.NDArray[np.float64]]:
    """(n,) 1.0 for each case that is right, by `text`, `image` and `group`, of cases of two images."""
    i2t, t2i = scores
    text = (i2t[:, 0, 0] > i2t[:, 0, 1]) & (i2t[:, 1, 1] > i2t[:, 1, 0])
    image = (t2i[:, 0, 0] > t2i[:, 1, 0]) & (t2i[:, 1, 1] > t2i[:, 0, 1])
    return {
        name: of.astype(np.float64)
        for name, of in (("text", text), ("image", image), ("group", text & image))
    }


def compositional(
    model: Any,
    cases: Cases,
    *,
    lang: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "fp32",
    announce: Announce = silent,
) -> dict[str, Any]:
    """{…, "task": "compositional", "n", "text", "image", "group", "macro", "categories", "bag_of_words", "ci95"}.

    `macro` is the mean of the categories' text scores, as ARO has it. `bag_of_words` counts the cases of which a
    wrong caption has the `same` words, and the text score that a model can reach to which order means nothing.
    """
    scores = case_scores(model, cases, batch_size=batch_size, precision=precision, announce=announce)
    two = all(len(case.images) == 2 for case in cases.cases)
    found = hits(scores)
    if not two:
        found = {"text": (scores.i2t[:, 0, 0] > scores.i2t[:, 0, 1:].max(1)).astype(np.float64)}
    n = len(cases.cases)
    categories, of = np.unique([case.category for case in cases.cases], return_inverse=True)
    same = np.array([any(same_words(one.captions[0], x) for x in one.captions[1:]) for one in cases.cases])
    stacked = np.stack(list(found.values()))  # (numbers, n)
    bounds: dict[str, list[float]] = {}
    if bootstrap and n > 1:
        intervals = interval(lambda w: 100 * (stacked @ w) / w.sum(), n, count=bootstrap, seed=seed)
        bounds = dict(zip(found, intervals, strict=True))
    by_category = {
        str(name): {
            "n": int((of == k).sum()),
            **{score: percent(hit[of == k].mean()) for score, hit in found.items()},
            "same_words": int(same[of == k].sum()),
        }
        for k, name in enumerate(categories)
    }
    return {
        "checkpoint": model.checkpoint_hash,
        "data": cases.source,
        "dataset": cases.kind,
        "split": "all",
        "split_hash": cases.split_hash,
        "lang": lang or "en",
        "similarity": model.similarity_kind,
        "task": "compositional",
        "prompts": "none",
        "n": n,
        **{score: percent(hit.mean()) for score, hit in found.items()},
        "macro": round(float(np.mean([one["text"] for one in by_category.values()])), 4),
        "categories": by_category,
        "bag_of_words": {"same": int(same.sum()), "ceiling": percent(1 - same.mean())},
        "chance": {"text": 25.0, "image": 25.0, "group": 16.6667}
        if two
        else {"text": percent(float(np.mean([1 / len(case.captions) for case in cases.cases])))},
        "ci95": bounds,
    }

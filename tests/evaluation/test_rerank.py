"""Re-ranking against a full sort, its limits, and matching against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_auroc

from vlcli.errors import UsageError
from vlcli.evaluation.matching import auc
from vlcli.evaluation.rerank import PRESETS, depth, probability, rerank
from vlcli.evaluation.retrieval import ranks
from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.models.r2d2 import Ranked
from vlcli.objectives.late_interaction import global_similarity

SCALE = 7.0


def cosine(image, text):
    return global_similarity(image.pooled, text.pooled)


def case(n, m, seed):
    rng = np.random.default_rng(seed)
    images = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(n, 3))).float(), dim=1)
    texts = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(m, 3))).float(), dim=1)
    mask = torch.ones(m, 1).bool()
    match = rng.integers(1, 7, size=(n, m)) / 7  # with ties
    positives = [set(np.flatnonzero(rng.random(m) < 0.3).tolist()) for _ in range(n)]
    return ImageTokens(None, images), TextTokens(None, mask, mask, texts), match, positives


def literal(cosines, match, right, k, how):
    """The rank of the best positive of one query, by a sort with wrong ones before right ones of equal score."""
    order = sorted(range(len(cosines)), key=lambda c: -cosines[c])
    first, rest = order[:k], order[k:]
    score = {
        c: {
            "match": match[c],
            "match+similarity": match[c] + cosines[c],
            "posterior": math.log(match[c] / (1 - match[c])) + SCALE * cosines[c],
        }[how]
        for c in first
    }
    first = sorted(first, key=lambda c: (-round(score[c], 5), c in right))
    whole = first + rest
    return next((place for place, c in enumerate(whole, 1) if c in right), 0)


@given(
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from(["match", "match+similarity", "posterior"]),
    st.integers(0, 10_000),
)
@settings(max_examples=80, deadline=None)
def test_the_first_k_are_sorted_anew_and_the_rest_stay(n, m, k, how, seed):
    images, texts, match, positives = case(n, m, seed)
    found = ranks(cosine, images, texts, positives)
    asked = []

    def matcher(i, j):
        asked.extend(zip(i.tolist(), j.tolist(), strict=True))
        return np.log(match[i, j] / (1 - match[i, j]))

    again = rerank(matcher, cosine, images, texts, positives, found, k=k, score=how, scale=SCALE)
    assert len(asked) == len(set(asked)), "no pair is asked for twice"
    scores = (images.pooled @ texts.pooled.T).double().numpy()
    for i in range(n):
        assert again.ranks.i2t[i] == literal(scores[i], match[i], positives[i], k, how)
        assert len(again.i2t[i].candidates) == min(k, m)
    for j in range(m):
        right = {i for i in range(n) if j in positives[i]}
        assert again.ranks.t2i[j] == literal(scores[:, j], match[:, j], right, k, how)


def test_odds_of_the_mean_probability_do_not_saturate():
    rng = torch.Generator().manual_seed(0)
    some = [torch.randn(50, 2, generator=rng) * 3 for _ in range(2)]
    ranked = Ranked(torch.zeros(50, 1, 1), *some)
    torch.testing.assert_close(
        torch.from_numpy(probability(ranked.log_odds.numpy())).float(), ranked.probability
    )
    sure = torch.tensor([[0.0, 60.0], [60.0, 0.0], [0.0, 80.0]])
    odds = Ranked(torch.zeros(3, 1, 1), sure, sure).log_odds
    torch.testing.assert_close(odds, torch.tensor([60.0, -60.0, 80.0], dtype=torch.float64))


def test_k_is_a_number_or_a_data_set_of_the_paper():
    assert depth("7") == 7
    assert depth("COCO-CN") == PRESETS["coco-cn"] == 256
    for wrong in ("0", "-1", "imagenet", "1.5"):
        with pytest.raises(UsageError, match="--rerank"):
            depth(wrong)


@given(st.integers(2, 30), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_auc_is_torchmetrics(n, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 8, n) / 8, rng.integers(0, 2, n)
    labels[:2] = 0, 1
    want = binary_auroc(torch.from_numpy(scores), torch.from_numpy(labels)).item()
    assert auc(scores, labels) == pytest.approx(want, abs=1e-6)
    weights = rng.integers(0, 3, n).astype(float)
    repeated = np.repeat(np.arange(n), weights.astype(int))
    if len(set(labels[repeated])) == 2:
        assert auc(scores, labels, weights) == pytest.approx(auc(scores[repeated], labels[repeated]))

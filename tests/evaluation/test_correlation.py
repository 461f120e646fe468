"""Spearman's correlation and its resamples, against scipy and against a literal loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from vlcli.evaluation.correlation import resampled, spearman


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=3, max_size=40))
def test_equal_to_scipys_with_ties(pairs):
    a, b = (np.array(side, float) for side in zip(*pairs, strict=True))
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert np.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def literal(similarities, ratings, sides, count, seed):
    """Half of the queries, one of the items of each, drawn by the same generator."""
    names = sorted({name for side in sides for name in side})
    items = {name: [i for side in sides for i, other in enumerate(side) if other == name] for name in names}
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(count):
        drawn = [names[q] for q in rng.permutation(len(names))[: len(names) // 2]]
        chosen = [
            items[name][k]
            for name, k in zip(drawn, rng.integers([len(items[n]) for n in drawn]), strict=True)
        ]
        values.append(100 * spearmanr(similarities[chosen], ratings[chosen]).statistic)
    return np.mean(values), np.std(values, ddof=1)


@pytest.mark.parametrize("both", [False, True])
def test_a_resample_is_half_of_the_queries_with_one_item_each(both):
    rng = np.random.default_rng(1)
    ratings = rng.integers(0, 6, 120).astype(float)
    similarities = ratings + rng.standard_normal(120).round(1)
    left, right = rng.integers(0, 25, 120), rng.integers(0, 25, 120)
    sides = (left, right) if both else (left,)
    found = resampled(similarities, ratings, *sides, count=40, seed=3)
    assert (found.mean, found.sd) == pytest.approx(literal(similarities, ratings, sides, 40, 3), abs=1e-3)
    assert found.n == 120
    assert found.queries == len(set(np.concatenate(sides)))


def test_which_side_asks_decides_the_deviation():
    """As in CxC: a tenth as many images as captions, so that with images for queries a resample has fewer pairs and
    its correlation spreads more, as the square root of the ratio says."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(500), 9)
    captions = np.arange(4500) % 2500
    ratings = rng.uniform(0, 5, 4500)
    similarities = ratings + 1.6 * rng.standard_normal(4500)
    by_image = resampled(similarities, ratings, images, count=300)
    by_caption = resampled(similarities, ratings, captions, count=300)
    assert by_image.mean == pytest.approx(by_caption.mean, abs=1.5)
    assert by_image.sd / by_caption.sd == pytest.approx((2500 / 500) ** 0.5, rel=0.25)
    assert resampled(similarities, ratings, images, count=0).sd == 0

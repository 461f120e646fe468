"""Differences of two checkpoints: against a loop over what was drawn, and what their intervals promise."""

import numpy as np
import pytest

from vlcli.errors import UsageError
from vlcli.evaluation.comparison import compare_accuracies, compare_recalls, require_comparable
from vlcli.evaluation.retrieval import Ranks, summary
from vlcli.evaluation.zeroshot import Classified, accuracies


def draws(units, count, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(units, size=units) for _ in range(count)]


def test_a_difference_of_recalls_is_drawn_for_both_at_once():
    rng = np.random.default_rng(0)
    positives = [{3 * i, 3 * i + 1, 3 * i + 2} for i in range(15)]
    one, other = (Ranks(rng.integers(1, 14, 15), rng.integers(1, 14, 45)) for _ in range(2))
    got = compare_recalls(one, other, positives, bootstrap=80, seed=3)
    values = []
    for drawn in draws(15, 80, 3):
        texts = [j for i in drawn for j in sorted(positives[i])]
        values.append(100 * ((one.t2i[texts] <= 5).mean() - (other.t2i[texts] <= 5).mean()))
    assert got["ci95"]["t2i"]["R@5"] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-3)
    alone = [summary(found, positives, bootstrap=0) for found in (one, other)]
    for side in ("i2t", "t2i"):
        for k in (1, 5, 10):
            difference = alone[0][side][f"R@{k}"] - alone[1][side][f"R@{k}"]
            assert got[side][f"R@{k}"] == pytest.approx(difference, abs=2e-4)
    assert got["MR"] == pytest.approx(alone[0]["MR"] - alone[1]["MR"], abs=2e-4)


def test_a_side_without_queries_has_no_difference():
    found = Ranks(np.array([1, 2]), np.array([0, 0, 0]))
    got = compare_recalls(found, found, [{0}, {1}], bootstrap=10)
    assert (got["t2i"], got["MR"]) == (None, 0.0)
    assert list(got["ci95"]) == ["i2t", "MR"]
    assert compare_recalls(found, found, [{0}, {1}], bootstrap=0)["ci95"] == {}


def test_a_difference_of_accuracies():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 30)
    one, other = (Classified(rng.integers(1, 9, 30), labels) for _ in range(2))
    got = compare_accuracies(one, other, bootstrap=50, seed=2)
    alone = [accuracies(*found, bootstrap=0, seed=0) for found in (one, other)]
    for name in ("top1", "top5", "mean_per_class"):
        assert got[name] == pytest.approx(alone[0][name] - alone[1][name], abs=2e-4)
    values = [100 * ((one.place[d] <= 1).mean() - (other.place[d] <= 1).mean()) for d in draws(30, 50, 2)]
    assert got["ci95"]["top1"] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-3)


def test_paired_intervals_cover_the_true_difference_and_are_narrower_than_unpaired_ones():
    """Pictures are hard or easy for both models, and the first is better by a known share: 400 worlds."""
    rng = np.random.default_rng(7)
    n, worlds, covered = 250, 400, 0
    labels = np.zeros(n, np.int64)
    widths, apart = [], []
    for world in range(worlds):
        easy = rng.random(n)  # P(first right) = easy, P(second right) = 0.8 easy; so the truth is 0.5 − 0.4
        one = Classified(np.where(rng.random(n) < easy, 1, 9), labels)
        other = Classified(np.where((one.place == 1) & (rng.random(n) < 0.8), 1, 9), labels)
        low, high = compare_accuracies(one, other, bootstrap=300, seed=world)["ci95"]["top1"]
        covered += low <= 10.0 <= high
        widths.append(high - low)
        ends = [accuracies(*found, bootstrap=50, seed=world)["ci95"]["top1"] for found in (one, other)]
        apart.append(np.hypot(*(high - low for low, high in ends)))
    assert 0.92 <= covered / worlds <= 0.98  # 95 %, give or take three standard errors
    assert np.mean(widths) < 0.6 * np.mean(apart)


def test_a_checkpoint_is_not_compared_with_itself():
    require_comparable({"checkpoint": "a"}, "b")
    with pytest.raises(UsageError, match="both are checkpoint a"):
        require_comparable({"checkpoint": "a"}, "a")

"""Numbers of classification by hand, by scikit-learn, and by the book."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.class_metrics import (
    Classified,
    Tally,
    by_place,
    class_ranks,
    eleven_points,
    mean_parts,
    mean_precision,
    numbers,
    probabilities,
    two_class_auc,
)
from vlcli.evaluation.class_sets import class_set, class_sets
from vlcli.evaluation.truth import truth_of
from vlcli.shards.pairs import load_pairs


def literal_eleven_points(scores, truth, weights):
    """VOC 2007's definition: at every threshold a recall and a precision; the best precision from each recall on."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        found = [i for i, score in enumerate(scores) if score >= threshold]
        right = sum(weights[i] for i in found if truth[i])
        total = sum(weights[i] for i in found)
        if total:
            points.append((right / sum(w for w, t in zip(weights, truth, strict=True) if t), right / total))
    return np.mean([max((p for r, p in points if r >= t / 10 - 1e-9), default=0.0) for t in range(11)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25))
def test_eleven_points_are_those_of_the_book_with_ties_and_weights(rows):
    scores, truth, weights = (np.array(column) for column in zip(*rows, strict=True))
    if not (weights * truth).sum():
        assert np.isnan(eleven_points(scores.astype(float), truth, weights.astype(float)))
        return
    got = eleven_points(scores.astype(float), truth, weights.astype(float))
    assert got == pytest.approx(literal_eleven_points(scores, truth, weights))


def test_what_is_difficult_is_left_out_of_the_ranking_of_its_class_alone():
    rng = np.random.default_rng(3)
    scores, truth = rng.random((40, 3)), rng.integers(-1, 2, (40, 3)).astype(np.int8)
    weights = rng.integers(0, 3, 40).astype(float)
    expected = [
        literal_eleven_points(scores[kept, c], truth[kept, c] > 0, weights[kept])
        for c in range(3)
        for kept in [np.flatnonzero(truth[:, c] >= 0)]
    ]
    assert mean_precision(scores, truth)(weights) == pytest.approx([np.mean(expected)])


def test_the_classes_of_a_row_and_those_that_are_difficult(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"id": i, "image_id": i, "image": f"{i}.png", "label": label, "difficult": hidden})
            + "\n"
            for i, (label, hidden) in enumerate(
                [(["dog", "cat"], []), (["dog"], ["cat"]), ([], ["bird"]), (["bird"], ["bird", "dog"])]
            )
        )
    )
    table = load_pairs(
        [str(tmp_path / "rows.jsonl")], need_text=False, columns=("label",), optional=("difficult",)
    )
    truth = truth_of(table, "label", None, several=True)
    assert list(truth.names.names.values()) == ["dog", "cat", "bird"]
    assert truth.labels.tolist() == [[1, 1, 0], [1, -1, 0], [0, 0, -1], [-1, 0, 1]]
    with pytest.raises(InputError, match="row 2 has no label"):
        truth_of(replace(table, frame=table.frame.drop("difficult")), "label", None, several=True)


def test_eleven_points_by_hand():
    # right, wrong, right: precision 1 up to recall 1/2, 2/3 from there on; six recalls ≤ 0.5
    got = eleven_points(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]))
    assert got == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    # recalls that are the list's own count: 3 of 10 found is recall 0.3
    scores = -np.arange(11.0)
    truth = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1], dtype=bool)
    assert eleven_points(scores, truth) == pytest.approx((4 * 1 + 7 * 10 / 11) / 11)
    # all tie: the precision of everything
    assert eleven_points(np.zeros(4), np.array([1, 0, 0, 0], dtype=bool)) == pytest.approx(0.25)


def test_the_mean_is_over_classes_that_have_positives():
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    truth = np.array([[True, False, False], [True, True, False]])
    assert mean_precision(scores, truth)(np.ones(2)) == pytest.approx([1.0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=30))
def test_the_auc_is_scikit_learns_with_ties_and_weights(rows):
    margin, labels, weights = (np.array(column) for column in zip(*rows, strict=True))
    kept = weights > 0
    scores = np.stack([np.zeros(len(margin)), margin.astype(float)], axis=1)
    got = two_class_auc(scores, labels)(weights.astype(float))
    if len(set(labels[kept])) < 2:
        assert np.isnan(got).all()
    else:
        want = roc_auc_score(labels[kept], margin[kept], sample_weight=weights[kept])
        assert got == pytest.approx([want])


def test_mean_per_class_is_scikit_learns_balanced_accuracy():
    rng = np.random.default_rng(0)
    scores, labels = (
        rng.normal(size=(80, 6)).round(1),
        rng.integers(0, 5, 80),
    )  # ties, and a class without images
    tally = Tally(6)
    for part in (slice(0, 33), slice(33, 80)):
        tally.add(torch.tensor(scores[part]), torch.tensor(labels[part]))
    found = numbers(tally.parts(), 80, bootstrap=0, seed=0)
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)  # that a class is answered and never true
        want = balanced_accuracy_score(labels, scores.argmax(1))
    assert found["mean_per_class"] == pytest.approx(100 * want, abs=1e-3)
    assert found["top1"] == pytest.approx(100 * (scores.argmax(1) == labels).mean(), abs=1e-3)


def test_kinetics_is_the_mean_of_two_numbers_and_its_interval_is_of_the_mean():
    tally = Tally(8, "mean_top1_top5")
    rng = np.random.default_rng(1)
    labels = torch.tensor(rng.integers(0, 8, 60))
    tally.add(torch.tensor(rng.normal(size=(60, 8))) + torch.nn.functional.one_hot(labels, 8), labels)
    found = numbers(tally.parts(), 60, bootstrap=200, seed=0)
    assert found["mean_top1_top5"] == pytest.approx((found["top1"] + found["top5"]) / 2, abs=1e-3)
    low, high = found["ci95"]["mean_top1_top5"]
    wide_low, wide_high = found["ci95"]["top1"]
    assert low <= found["mean_top1_top5"] <= high
    assert high - low < wide_high - wide_low


def test_intervals_of_precision_and_auc_are_around_them():
    rng = np.random.default_rng(2)
    for metric, classes in (("map11", 4), ("auc", 2)):
        labels = torch.tensor(rng.integers(0, classes, 100))
        scores = torch.tensor(rng.normal(size=(100, classes))) + torch.nn.functional.one_hot(labels, classes)
        tally = Tally(classes, metric)
        tally.add(scores, labels)
        found = numbers(tally.parts(), 100, bootstrap=300, seed=0)
        low, high = found["ci95"][metric]
        assert low < found[metric] < high
        assert "top1" in found


def test_a_class_that_nothing_speaks_for_is_last_and_no_hit():
    never = float("-inf")
    scores = torch.tensor([[never, 0.5, never, never], [never, 0.5, 0.1, never]])
    assert class_ranks(scores, torch.tensor([0, 2])).tolist() == [4, 2]
    assert class_ranks(scores, torch.tensor([1, 3])).tolist() == [1, 4]


def test_what_cannot_be_measured_is_refused():
    tally = Tally(2, "auc")
    tally.add(torch.eye(2), torch.tensor([1, 1]))
    with pytest.raises(InputError, match="all rows are of one"):
        tally.parts()
    with pytest.raises(InputError, match="of two classes, and there are 3"):
        Tally(3, "auc")
    with pytest.raises(InputError, match="no top-1"):
        Tally(3).add(torch.zeros(1, 3), torch.ones(1, 3).bool())


def test_means_over_tests_of_different_images_draw_all_images():
    one = Classified(np.array([1, 2, 1]), np.array([0, 0, 1]))
    other = Classified(np.array([2, 1]), np.array([1, 1]))
    names = ("top1", "top5", "mean_per_class")
    parts = mean_parts(
        [[(names, by_place(one))], [(names, by_place(other))]], [np.array([0, 1, 2]), np.array([1, 3])]
    )
    found = numbers(parts, 4, bootstrap=100, seed=0)
    assert found["top1"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2, abs=1e-3)
    statistic = parts[0][1]
    weights = np.array([0.0, 1, 3, 2])  # the images of each test by their own weights
    assert statistic(weights)[0] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_probabilities_keep_the_order_of_classes():
    scores = torch.tensor([[0.2, 0.21, 0.1]]).double()
    assert probabilities(scores).argsort(1).tolist() == scores.argsort(1).tolist()
    assert float(probabilities(scores)[0, 1] / probabilities(scores)[0, 0]) == pytest.approx(np.exp(1.0))


def test_the_registry_is_of_the_sets_of_the_papers():
    sets = class_sets()
    names = [group for one in sets.values() for group in one.groups if group != "clip"]
    counts = {group: names.count(group) for group in names}
    assert counts == {
        "elevater": 20, "vtab": 19, "vtab-natural": 7, "vtab-specialized": 4, "vtab-structured": 8,
        "filip": 12, "imagenet": 6,
    }  # fmt: skip
    # [X §5.1]
    by_metric = {
        metric: {name for name, one in sets.items() if one.metric == metric}
        for metric in ("mean_per_class", "map11", "mean_top1_top5", "auc")
    }
    assert by_metric == {
        "mean_per_class": {"aircraft", "pets", "caltech101", "flowers102"},
        "map11": {"voc2007"},
        "mean_top1_top5": {"kinetics400", "kinetics600"},
        "auc": {"hateful-memes"},
    }
    for one in sets.values():
        assert one.classes >= 2
        assert one.counts in ("elevater", "datacomp", "vtab", "clip")
        assert set(one.images) <= {"train", "val", "test"}


def test_departures_are_told_and_a_chosen_part_is_none():
    aircraft = class_set("aircraft")
    assert aircraft.departures(100, 3333) == []
    assert aircraft.departures(99, 3333) == ["aircraft has 100 classes, here are 99"]
    assert aircraft.departures(100, 10) == ["the test split of aircraft has 3,333 images, here are 10"]
    imagenet = class_set("imagenet")
    assert imagenet.departures(648, 32400, left_out=17600) == []
    with pytest.raises(UsageError, match="imagenet-r"):
        class_set("imagenet-rr")

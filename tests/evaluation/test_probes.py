"""The probes against scikit-learn, and against the same said slowly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.class_metrics import eleven_points
from vlcli.evaluation.probes.few_shot import draw
from vlcli.evaluation.probes.knn import knn, neighbours, recall_places, vote
from vlcli.evaluation.probes.labelled import Labelled
from vlcli.evaluation.probes.linear import STEPS, fit, linear_probe, penalty, search
from vlcli.evaluation.probes.ridge import PENALTIES, Ridge, choose


def clouds(n, d=12, classes=5, seed=0, spread=1.0):
    """Overlapping clouds, a direction a class: nothing separates them wholly."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(99).normal(size=(classes, d))
    labels = rng.permutation(np.arange(n) % classes)
    vectors = middles[labels] + spread * rng.normal(size=(n, d)) * np.linspace(0.3, 3, d)
    return Labelled(torch.tensor(vectors, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("l2", [1e-2, 1.0, 100.0])
def test_the_linear_probe_predicts_what_scikit_learn_predicts(l2, classes):
    train, test = clouds(300, classes=classes), clouds(400, classes=classes, seed=1)
    head = fit(train, classes, l2, tolerance=1e-9)
    oracle = LogisticRegression(C=1 / l2, max_iter=10000, tol=1e-10)
    oracle.fit(train.vectors.double().numpy(), train.labels.numpy())
    expected = oracle.predict_proba(test.vectors.double().numpy())
    assert np.allclose(head.scores(test.vectors).softmax(1), expected, atol=1e-4)
    answers = head.scores(test.vectors).argmax(1).numpy()
    assert (answers == oracle.predict(test.vectors.double().numpy())).all()
    assert head.top1(test) == pytest.approx((answers == test.labels.numpy()).mean())


def test_blocks_and_a_start_elsewhere_lead_to_the_same_head(monkeypatch):
    train = clouds(200)
    whole = fit(train, 5, 1.0, tolerance=1e-9)
    monkeypatch.setattr("vlcli.evaluation.probes.labelled.BLOCK", 7 * 12)
    again = fit(train, 5, 1.0, tolerance=1e-9, start=fit(clouds(100, seed=4), 5, 1e-3))
    assert torch.allclose(again.weight, whole.weight, atol=1e-6)
    # biases may all be moved by one number
    assert torch.allclose(again.bias - again.bias.mean(), whole.bias - whole.bias.mean(), atol=1e-6)


def test_a_class_without_rows_is_never_answered():
    train = clouds(200)
    moved = Labelled(train.vectors, torch.where(train.labels >= 2, train.labels + 1, train.labels))
    head = fit(moved, 7, 1.0)
    assert set(head.scores(train.vectors).argmax(1).tolist()) == {0, 1, 3, 4, 5}
    assert head.scores(train.vectors)[:, [2, 6]].isneginf().all()
    with pytest.raises(InputError, match="two classes"):
        fit(Labelled(train.vectors[:2], torch.zeros(2).long()), 3, 1.0)


def test_the_grid_is_clips():
    steps = [penalty(step) for step in range(STEPS + 1)]
    assert np.allclose(np.log10(steps), np.linspace(-6, 6, 97))
    assert penalty(44) == pytest.approx(0.316, abs=3e-4)  # the penalty of CLIP's README is one of them


def test_the_search_starts_from_seven_points_and_ends_at_the_best_step():
    train, val = clouds(300, d=4, spread=2.0), clouds(2000, d=4, seed=5, spread=2.0)
    found = search(train, val, 5)
    every_two_decades = {10.0**k for k in range(-6, 7, 2)}
    assert all(any(np.isclose(l2, tried) for tried in found.tried) for l2 in every_two_decades)
    assert (
        7 + 4 <= len(found.tried) <= 7 + 8
    )  # two neighbours a halving, of which some were tried or lie outside
    assert found.tried[found.l2] == max(found.tried.values())
    step = 10 ** (1 / 8)
    neighbours = [l2 for l2 in found.tried if 0.99 / step < l2 / found.l2 < 1.01 * step]
    assert len(neighbours) == 3
    # the same by fits that start from nothing
    slow = {l2: fit(train, 5, l2).top1(val) for l2 in found.tried}
    assert slow == pytest.approx(found.tried, abs=5e-3)


def test_the_probe_learns_from_both_sets_in_the_end():
    train, val = clouds(300, d=4), clouds(60, d=4, seed=7)
    found = linear_probe(train, val, 5)
    assert torch.allclose(found.head.weight, fit(train.and_(val), 5, found.l2).weight)
    assert found.head.top1(clouds(2000, d=4, seed=8)) > 0.5
    given = linear_probe(train, val, 5, l2=3.0)
    assert (given.l2, given.tried) == (3.0, {})


def tags(n, seed=0, hidden=False):
    """Images of none, one or several of four classes, by the sides of four planes that noise blurs; with `hidden` some
    that count neither way."""
    rng = np.random.default_rng(seed)
    planes = np.random.default_rng(98).normal(size=(4, 12))
    vectors = rng.normal(size=(n, 12)) * np.linspace(0.3, 3, 12)
    labels = (vectors @ planes.T + 3 * rng.normal(size=(n, 4)) > 2).astype(np.int8)
    if hidden:
        labels[rng.random((n, 4)) < 0.1] = -1
    return Labelled(torch.tensor(vectors, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("hidden", [False, True])
def test_of_several_classes_each_is_scikit_learns_against_the_rest(hidden):
    train, test = tags(300, hidden=hidden), tags(200, seed=1, hidden=hidden)
    starts = [None, fit(tags(100, seed=4), 4, 1e-2)]
    heads = [fit(train, 4, 1.0, tolerance=1e-9, start=start) for start in starts]
    scores = [head.scores(test.vectors) for head in heads]
    assert torch.allclose(*scores, atol=1e-5)
    precisions = []
    for c in range(4):
        counted = train.labels[:, c] >= 0
        oracle = LogisticRegression(C=1.0, max_iter=10000, tol=1e-10)
        oracle.fit(train.vectors[counted].double().numpy(), train.labels[counted, c].numpy())
        expected = oracle.decision_function(test.vectors.double().numpy())
        assert np.allclose(scores[0][:, c], expected, atol=1e-4)
        counts = test.labels[:, c].numpy() >= 0
        precisions.append(eleven_points(expected[counts], test.labels[counts, c].numpy() > 0))
    assert heads[0].score(test) == pytest.approx(np.mean(precisions), abs=1e-6)


def test_a_class_of_no_row_or_of_all_tells_nothing():
    train = tags(100)
    train.labels[:, 1], train.labels[:, 2] = 0, 1
    scores = fit(train, 4, 1.0).scores(train.vectors)
    assert scores[:, 1].isneginf().all()
    assert (scores[:, 2] == 0).all()
    assert scores[:, [0, 3]].isfinite().all()


def test_of_several_classes_penalties_are_chosen_by_mean_average_precision():
    train, val = tags(60), tags(500, seed=3)
    found = search(train, val, 4)
    assert found.tried[found.l2] == max(found.tried.values()) == found.head.score(val)
    head, l2, tried = choose(train, 4, val)
    assert tried[l2] == max(tried.values()) == head.score(val)
    assert 0.3 < head.score(val) < 1


@pytest.mark.parametrize("n", [40, 9])
def test_ridge_of_several_classes_is_scikit_learns_and_so_without_each_row(n):
    train, test = tags(n), tags(50, seed=1)
    scaler = StandardScaler().fit(train.vectors.double())
    x = torch.tensor(scaler.transform(train.vectors.double()))
    targets = train.labels.double().numpy()
    oracle = SklearnRidge(alpha=2.0).fit(x, targets)
    expected = oracle.predict(scaler.transform(test.vectors.double()))
    ridge = Ridge(train, 4)
    assert np.allclose(ridge.head(2.0).scores(test.vectors), expected, atol=1e-6)
    said = []
    for i in range(n):
        rest = torch.arange(n) != i
        said.append(SklearnRidge(alpha=2.0).fit(x[rest], targets[rest]).predict(x[i : i + 1])[0])
    precisions = [
        eleven_points(np.array(said)[:, c], targets[:, c] > 0) for c in range(4) if targets[:, c].any()
    ]
    assert ridge.leave_one_out(2.0) == pytest.approx(np.mean(precisions), abs=1e-9)


def test_neighbours_of_several_classes_vote_for_all_of_theirs():
    train, test = tags(40, hidden=True), tags(10, seed=1)
    places, scores = knn(train, test, 4, k=3)
    for i, query in enumerate(test.vectors):
        near = literal_neighbours(train.vectors, query, 10)
        shared = [bool(((train.labels[j] > 0) & (test.labels[i] > 0)).any()) for j in near]
        assert int(places[i]) == (shared.index(True) + 1 if any(shared) else 11)
        votes, total = np.zeros(4), 0.0
        for j in near[:3]:
            vote_of = np.exp(float(train.vectors[j] @ query / train.vectors[j].norm() / query.norm()) / 0.07)
            votes += vote_of * (train.labels[j].numpy() > 0)
            total += vote_of
        assert scores[i].tolist() == pytest.approx((votes / total).tolist(), abs=1e-4)


@pytest.mark.parametrize("n", [200, 9])
@pytest.mark.parametrize("l2", [2.0**-10, 1.0, 50.0])
def test_ridge_is_scikit_learns_for_many_rows_and_for_few(n, l2):
    train, test = clouds(n, classes=3), clouds(50, classes=3, seed=1)
    head = Ridge(train, 3).head(l2)
    scaler = StandardScaler().fit(train.vectors.double())
    oracle = SklearnRidge(alpha=l2).fit(scaler.transform(train.vectors.double()), np.eye(3)[train.labels])
    assert np.allclose(
        head.scores(test.vectors), oracle.predict(scaler.transform(test.vectors.double())), atol=1e-6
    )


@pytest.mark.parametrize("n", [40, 9])
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_leaving_one_out_is_a_regression_without_it(n, l2):
    train = clouds(n, classes=3)
    x = torch.tensor(StandardScaler().fit_transform(train.vectors.double()))
    right = 0
    for i in range(n):
        rest = torch.arange(n) != i
        oracle = SklearnRidge(alpha=l2).fit(x[rest], np.eye(3)[train.labels[rest]])
        right += int(oracle.predict(x[i : i + 1]).argmax() == train.labels[i])
    assert Ridge(train, 3).leave_one_out(l2) == right / n


def test_ridge_bears_a_column_that_is_constant():
    train = clouds(50)
    train.vectors[:, 3] = 7.0
    assert torch.isfinite(Ridge(train, 5).head(1e-3).weight).all()


def test_the_penalty_of_ridge_is_the_best_on_validation():
    train, val = clouds(60, spread=2.0), clouds(500, seed=3, spread=2.0)
    head, l2, tried = choose(train, 5, val)
    slow = {p: Ridge(train, 5).head(p).top1(val) for p in PENALTIES}
    assert tried == slow
    assert l2 == max(p for p in PENALTIES if slow[p] == max(slow.values()))
    assert head.top1(val) == max(slow.values())


def literal_neighbours(train, query, k):
    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    order = sorted(range(len(train)), key=lambda j: (-round(cosine(train[j], query), 6), j))
    return order[:k]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_neighbours_and_votes_equal_the_slow_ones_with_ties(seed, k):
    rng = np.random.default_rng(seed)
    # along the axes, so that a cosine is a coordinate, whatever the order of the sum, and equal ones are equal
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    corners = axes[torch.tensor(rng.integers(0, 6, size=9))] * torch.tensor(rng.integers(1, 4, size=(9, 1)))
    labels = torch.tensor(rng.integers(0, 3, size=9))
    queries = torch.tensor(rng.integers(-2, 3, size=(5, 3)), dtype=torch.float32)
    queries[:, 0] += 0.5
    truth = torch.tensor(rng.integers(0, 3, size=5))
    found = neighbours(corners, queries, k)
    places, scores = recall_places(found, labels, truth), vote(found, labels, 3)
    for i, query in enumerate(queries):
        near = literal_neighbours(corners, query, k)
        assert found.rows[i].tolist() == near
        hits = [place for place, j in enumerate(near, start=1) if labels[j] == truth[i]]
        assert int(places[i]) == (hits[0] if hits else k + 1)
        votes = np.zeros(3)
        for j in near:
            cosine = corners[j] @ query / corners[j].norm() / query.norm()
            votes[labels[j]] += np.exp(float(cosine) / 0.07)
        assert scores[i].tolist() == pytest.approx((votes / votes.sum()).tolist(), abs=1e-4)


def test_blocks_of_queries_change_nothing(monkeypatch):
    train, test = clouds(50), clouds(30, seed=1)
    places, scores = knn(train, test, 5)
    monkeypatch.setattr("vlcli.evaluation.probes.knn.BLOCK", 200)
    again = knn(train, test, 5)
    assert torch.equal(places, again[0])
    assert torch.allclose(scores, again[1])


def test_k_may_be_all_and_not_more():
    train, test = clouds(6), clouds(4, seed=1)
    places, _ = knn(train, test, 5, k=6)
    assert (places <= 7).all()
    with pytest.raises(UsageError, match="7 neighbours of 6 training images"):
        knn(train, test, 5, k=7)
    with pytest.raises(UsageError, match="0 neighbours"):
        neighbours(train.vectors, test.vectors, 0)


def test_shots_are_drawn_by_the_seed_class_by_class():
    labels = torch.tensor([2, 0, 0, 2, 1, 2, 1, 0, 1, 2])
    few, more = draw(labels, 3, 2, seed=0), draw(labels, 3, 3, seed=0)
    assert labels[few].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(more.tolist())) == 9
    assert set(few.tolist()) < set(more.tolist())
    assert draw(labels, 3, 2, seed=0).tolist() == few.tolist()
    assert any(draw(labels, 3, 2, seed=s).tolist() != few.tolist() for s in (1, 2))
    with pytest.raises(InputError, match="class 0 has 3 training rows, 4 shots"):
        draw(labels, 3, 4, seed=0)

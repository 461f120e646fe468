"""The order of pairs: a function of seed, step and data; passes without repetition, mixtures by weight."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.errors import UsageError
from vlcli.schemas.parts import DataConfig
from vlcli.shards.pair_table import Share
from vlcli.training.order import Order, quotas, share


def order(pairs: int, *, seed: int = 0, shares: tuple[Share, ...] = (), **data) -> Order:
    return Order(pairs, DataConfig(**data), seed=seed, shares=shares)


def stream(made: Order, epochs: int) -> list[tuple[int, int]]:
    """(row, time) of all steps."""
    steps = [made.step(k) for k in range(epochs * made.steps_per_epoch)]
    return [(int(r), int(t)) for step in steps for r, t in zip(step.rows, step.times, strict=True)]


def test_an_epoch_is_a_permutation_of_seed_and_epoch():
    """As runs of earlier versions had it."""
    made = order(50, batch_size=10, seed=7)
    for epoch in (0, 3):
        want = np.random.default_rng([7, epoch]).permutation(50)
        got = [made.step(epoch * 5 + k) for k in range(5)]
        assert np.array_equal(np.concatenate([step.rows for step in got]), want)
        assert {step.epoch for step in got} == {epoch}
        assert {int(t) for step in got for t in step.times} == {epoch}


@pytest.mark.parametrize(
    ("pairs", "kept", "dropped"), [(20, [8, 8, 4], 2), (24, [8, 8, 8], 3), (3, [3], 0), (17, [8, 8, 1], 2)]
)
def test_the_last_batch(pairs, kept, dropped):
    made = order(pairs, batch_size=8, last="keep")
    assert [len(made.step(k).rows) for k in range(made.steps_per_epoch)] == kept
    assert sorted(row for row, _ in stream(made, 1)) == list(range(pairs))
    if dropped:
        assert order(pairs, batch_size=8).steps_per_epoch == dropped
    else:
        with pytest.raises(UsageError, match="3 pairs are fewer than one batch of 8"):
            order(pairs, batch_size=8)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.floats(0.1, 5)), min_size=1, max_size=3),
    st.integers(2, 40),
    st.integers(2, 9),
    st.integers(1, 4),
)
def test_no_pair_comes_again_before_all_of_its_source_came(sources, epoch_pairs, batch_size, epochs):
    shares, start = [], 0
    for number, (size, weight) in enumerate(sources):
        shares.append(Share(str(number), start, start + size, weight))
        start += size
    wanted = quotas([s.weight for s in shares], epoch_pairs)
    if not all(wanted):
        return
    made = order(start, batch_size=batch_size, epoch_pairs=epoch_pairs, last="keep", shares=tuple(shares))
    drawn = stream(made, epochs)
    assert len(drawn) == epochs * epoch_pairs
    assert len(set(drawn)) == len(drawn), "(row, time) is unique: augmentation and texts are drawn anew"
    counts = Counter(row for row, _ in drawn)
    for one, quota in zip(shares, wanted, strict=True):
        seen = [counts[row] for row in range(one.start, one.stop)]
        assert sum(seen) == epochs * quota
        assert max(seen) - min(seen) <= 1
        assert all(time < counts[row] for row, time in drawn)


def test_a_mixture_is_mixed_and_its_sources_have_orders_of_their_own():
    shares = (Share("a", 0, 100, 0.8), Share("b", 100, 200, 0.2))
    made = order(200, batch_size=20, shares=shares)
    parts = [Counter("ab"[int(row) >= 100] for row in made.step(k).rows) for k in range(10)]
    assert sum(part["a"] for part in parts) == 160
    assert min(part["b"] for part in parts) > 0
    drawn = stream(made, 1)
    first = [row for row, time in drawn if row < 100 and time == 0]
    assert sorted(first) == list(range(100)), "a comes once, and 60 of it a second time"
    assert [row - 100 for row, _ in drawn if row >= 100] != first[:40]
    assert (
        order(200, batch_size=20, shares=shares, seed=1).step(0).rows.tolist() != made.step(0).rows.tolist()
    )


def test_a_virtual_epoch_goes_on_where_the_last_one_ended():
    made = order(30, batch_size=5, epoch_pairs=10)
    want = np.random.default_rng([0, 0]).permutation(30)
    assert np.array_equal(np.concatenate([made.step(k).rows for k in range(6)]), want)
    assert [made.step(k).epoch for k in range(6)] == [0, 0, 1, 1, 2, 2]
    twice = stream(order(30, batch_size=60, epoch_pairs=60), 1)
    assert sorted(twice) == [(row, time) for row in range(30) for time in (0, 1)]


def test_a_source_that_an_epoch_has_nothing_of_is_a_usage_error():
    with pytest.raises(UsageError, match="an epoch of 4 pairs has none of b"):
        order(20, batch_size=4, epoch_pairs=4, shares=(Share("a", 0, 10, 99), Share("b", 10, 20, 1)))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(1, 1000))
def test_quotas(weights, total):
    parts = quotas(weights, total)
    assert sum(parts) == total
    for weight, part in zip(weights, parts, strict=True):
        assert abs(part - total * weight / sum(weights)) < 1


@given(st.integers(0, 40), st.integers(1, 8))
def test_shares_of_a_batch_have_no_overlap_and_no_loss(pairs, world):
    parts = [list(range(pairs))[share(pairs, rank, world)] for rank in range(world)]
    assert [pair for part in parts for pair in part] == list(range(pairs))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1

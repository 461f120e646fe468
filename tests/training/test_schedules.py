"""The rate at every boundary, written out; and what holds of every schedule."""

from itertools import pairwise

import pytest

from vlcli.schemas.parts import ScheduleConfig
from vlcli.training.schedules import learning_rate

COS45, COS135 = 0.8535533905932737, 0.1464466094067262  # (1 ± √½) / 2

# (schedule, warm-up, steps of the run) → the rate at every step, as a share of the peak.
TABLE = [
    # Warm-up reaches the peak with its last step; the decay starts there too and would reach 0 one step after the end.
    ("cosine", 4, 8, [0.25, 0.5, 0.75, 1.0, 1.0, COS45, 0.5, COS135]),
    ("linear", 4, 8, [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]),
    ("constant", 4, 8, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ("cosine", 0, 4, [1.0, COS45, 0.5, COS135]),
    ("linear", 0, 4, [1.0, 0.75, 0.5, 0.25]),
    ("constant", 0, 2, [1.0, 1.0]),
    ("cosine", 1, 3, [1.0, 1.0, 0.5]),
    # AltCLIP's second stage: as many steps of warm-up as there are.
    ("cosine", 4, 4, [0.25, 0.5, 0.75, 1.0]),
    # A warm-up longer than the run is cut to it.
    ("cosine", 3000, 4, [0.25, 0.5, 0.75, 1.0]),
    ("linear", 3000, 2, [0.5, 1.0]),
    ("constant", 3000, 1, [1.0]),
    ("linear", 0, 1, [1.0]),
]


@pytest.mark.parametrize(("name", "warmup", "total", "want"), TABLE)
def test_rates_step_by_step(name, warmup, total, want):
    config = ScheduleConfig(name=name, warmup_steps=warmup)
    rates = [learning_rate(step, total, 2e-3, config) for step in range(total)]
    assert rates == pytest.approx([2e-3 * share for share in want], rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(
    ("warmup", "total"), [(0, 50), (7, 50), (49, 50), (50, 50), (80, 50), (3000, 62_500)]
)
def test_no_step_is_wasted_and_the_rate_never_jumps_up_again(name, warmup, total):
    config = ScheduleConfig(name=name, warmup_steps=warmup)
    rates = [learning_rate(step, total, 1.0, config) for step in range(total)]
    peak = max(min(warmup, total) - 1, 0)
    assert rates[peak] == 1.0
    assert all(0 < rate <= 1 for rate in rates)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))


def test_the_last_step_of_a_long_cosine_is_almost_nothing():
    config = ScheduleConfig(name="cosine", warmup_steps=3000)
    assert 0 < learning_rate(99_999, 100_000, 1.0, config) < 1e-9

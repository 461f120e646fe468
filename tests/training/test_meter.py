"""The numbers of a log line: means, rates, and time that is the steps' own."""

import pytest

from vlcli.training import meter as module
from vlcli.training.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_waiting_and_computing_are_told_apart_and_what_lies_between_steps_is_neither(clock):
    meter = Meter()
    for loss in (3.0, 1.0):
        with meter.waiting():
            clock(0.5)
        with meter.computing():
            clock(1.5)
        meter.add({"loss": loss, "grad_norm": 2 * loss})
        clock(100)  # a validation, say
    assert meter.values(8) == {
        "loss": 2.0,
        "grad_norm": 4.0,
        "pairs_per_second": 4.0,
        "data_wait": 0.25,
        "data_seconds": 0.5,
        "compute_seconds": 1.5,
    }


def test_steps_before_a_resumption_count_in_means_and_not_in_rates(clock):
    before = Meter()
    before.add({"loss": 5.0})
    meter = Meter.resumed(before.sums())
    with meter.computing():
        clock(2)
    meter.add({"loss": 1.0})
    values = meter.values(8)
    assert (values["loss"], values["pairs_per_second"], values["compute_seconds"]) == (3.0, 4.0, 2.0)

"""Where the time of a step goes: sections of a clock, operations counted in two ways, nothing left behind."""

import tempfile

import pytest
import torch
from training_cases import Silent, recipe

from vlcli.training import profile as module
from vlcli.training.pretraining import Pretraining
from vlcli.training.profile import SECTIONS, WARM_UP, _Clock, matmul_speed, pairs_needed, profile


def test_a_section_inside_another_is_counted_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    clock = _Clock(torch.device("cpu"))
    with clock.section("text"):
        now[0] += 100  # it is off
    clock.on = True

    def passes(seconds):
        now[0] += seconds

    inner = clock.timed("text", passes)
    with clock.section("backward"):
        passes(2)
        inner(3)  # as a pass that is computed again for its gradient
        passes(5)
    passes(7)  # of no section
    assert clock.seconds == {"backward": 7.0, "text": 3.0}


@pytest.mark.parametrize(
    "options", [[], ["model.image.locked=false", "data.workers=0"]], ids=["cached", "pixels"]
)
def test_a_profile_adds_up_and_leaves_no_run(table, cache, tmp_path, monkeypatch, options):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "matmul_speed", lambda *_: 1e9)
    chosen = recipe(cache, "model.similarity=global", *options)
    found = profile(Pretraining, chosen, table, Silent(), steps=2, device="cpu")
    assert list(tmp_path.iterdir()) == []
    assert set(found["shares"]) == set(SECTIONS)
    assert sum(found["shares"].values()) == pytest.approx(1)
    for name in ("text tower", "backward", "optimizer", "similarity"):
        assert found["shares"][name] > 0
    assert found["steps"] == 2
    assert found["pairs_per_second"] == pytest.approx(16 / found["seconds_per_step"])
    flops = found["flops_per_step"]
    if options:  # grouped convolutions learn: torch's counter says too much of their gradient
        assert flops["counted"] > flops["analytic"] > 0
    else:
        # ours has both operands' gradients of the first product of a tower, of which one has none
        assert flops["counted"] == pytest.approx(flops["analytic"], rel=0.02)
    assert found["utilisation"] == pytest.approx(
        flops["analytic"] / found["seconds_per_step"] / 1e9, rel=0.02
    )
    assert found["features"] == ("computed" if options else "cached")
    assert found["memory"]["peak"] is None or found["memory"]["peak"] >= found["memory"]["before"] > 0


def test_the_ceiling_is_that_of_the_fastest_product(monkeypatch):
    now = iter([0.0, 0.0, 2.0, 2.0, 3.0] * 2)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    # at each size one product takes two seconds, another one; the limit is told first
    assert matmul_speed(torch.device("cpu"), "fp32", seconds=2.5) == 2 * 2048**3 / 1


def test_no_more_pairs_are_read_than_steps_are_taken(cache):
    assert pairs_needed(recipe(cache), 5) == 16 * (WARM_UP + 2 * 5 + 1)

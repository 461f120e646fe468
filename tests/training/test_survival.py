"""What a run carries from one process to the next, and what it leaves behind when it must stop."""

import contextlib
import os
import random
import subprocess
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from training_cases import Silent, pairs, recipe

import vlcli
from vlcli.errors import Terminated, UsageError, VlcliError
from vlcli.models.quickcheck import check_checkpoint
from vlcli.training.averages import Averages, moving
from vlcli.training.pretraining import Pretraining
from vlcli.training.state import read_state

EVERY = ("train.keep=9", "data.workers=0")


def begin(cache, out, *overrides, kind=Pretraining, **options):
    reporter = Silent()
    return kind(recipe(cache, *overrides), pairs(), out, reporter, device="cpu", **options), reporter


def stopped_after(run, step):
    """Run, and stop as on SIGTERM after that step."""
    run.engine.reporter.step = lambda now, *_: setattr(run.engine, "stop_signal", now == step)
    with pytest.raises(Terminated):
        run.run()


def files_of(run):
    """The weights and the training state of the last checkpoint."""
    state = read_state(run / "last")
    return {**load_file(run / "last" / "model.safetensors")}, state


def assert_same(a, b):
    """Nested tensors and numbers, to the bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    elif torch.is_tensor(a):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_averages_are_those_of_torch():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].bias.requires_grad_(False)
    theirs = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    ours = Averages(model, 0.9)
    assert set(ours.tensors) == {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    theirs.update_parameters(model)  # its first takes the weights as they are
    for step in range(100, 105):  # where the decay is its own
        with torch.no_grad():
            for x in moving(model).values():
                x.add_(torch.randn_like(x))
        ours.update(model, step)
        theirs.update_parameters(model)
    wanted = theirs.module.state_dict()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with ours.in_place(model):
        for name in ours.tensors:
            torch.testing.assert_close(model.state_dict()[name], wanted[name])
    assert_same(dict(model.state_dict()), before)


def test_what_is_saved_is_the_average_and_what_goes_on_are_the_weights(cache, tmp_path):
    """Against the sum written out: w₀ and the weights after each step, each with its share."""
    run, reporter = begin(cache, tmp_path / "run", *EVERY, "train.ema=0.6", validation=pairs(20))
    trail = [{name: x.double().clone() for name, x in moving(run.model).items()}]
    stepped = run.stepped
    run.stepped = lambda: (
        stepped(),
        trail.append({name: x.double().clone() for name, x in moving(run.model).items()}),
    )
    run.run()
    saved, state = files_of(tmp_path / "run")
    decays = [min(0.6, (1 + t) / (10 + t)) for t in range(1, 13)]
    shares = [np.prod(decays), *((1 - d) * np.prod(decays[t:]) for t, d in enumerate(decays, start=1))]
    assert sum(shares) == pytest.approx(1)
    for name in trail[0]:
        average = sum(share * weights[name] for share, weights in zip(shares, trail, strict=True))
        torch.testing.assert_close(saved[name].double(), average, rtol=1e-5, atol=1e-6)
        assert torch.equal(state["weights"][name].double(), trail[-1][name]), "to go on from"
    assert not torch.equal(saved["text_projection.weight"], state["weights"]["text_projection.weight"])
    last = vlcli.load(tmp_path / "run" / "last")
    assert run.validation(last)["MR"] == reporter.found[-1][1]["MR"], "the average was judged"


@pytest.mark.parametrize("ema", [0, 0.9])
def test_nothing_depends_on_a_generator_that_outlives_a_step(cache, tmp_path, ema):
    """Dropout of a tower's own, by torch's generator, and other users of the global generators between steps."""

    class Noisy(Pretraining):
        def losses(self, model, batch, step):
            self.drop = (
                self.drop
                if hasattr(self, "drop")
                else self.model.text.register_forward_hook(
                    lambda module, inputs, output: F.dropout(output, 0.3, module.training)
                )
            )
            return super().losses(model, batch, step)

        def stepped(self):
            super().stepped()
            torch.rand(self.draws), random.random(), np.random.random()

    options = (*EVERY, f"train.ema={ema}", "train.save_every=0")
    Noisy.draws = 1
    begin(cache, tmp_path / "whole", *options, kind=Noisy)[0].run()
    stopped_after(begin(cache, tmp_path / "part", *options, kind=Noisy)[0], 5)
    Noisy.draws = 3
    run, _ = begin(cache, tmp_path / "part", *options, kind=Noisy, resume=True)
    assert run.engine.step == 5
    run.run()
    for whole, part in zip(files_of(tmp_path / "whole"), files_of(tmp_path / "part"), strict=True):
        assert_same(whole, part)


class Queueing(Pretraining):
    """A task with a state of its own: the temperatures of the last steps."""

    def __init__(self, *arguments, **options):
        self.queue = torch.zeros(4)
        super().__init__(*arguments, **options)

    def stepped(self):
        super().stepped()
        self.queue = torch.cat([self.queue[1:], self.model.log_scale.detach()[None]])

    def state_dict(self):
        return {"queue": self.queue, "filled": int((self.queue != 0).sum())}

    def load_state_dict(self, state):
        self.queue = state["queue"]


def test_the_state_of_a_task_is_in_its_checkpoints(cache, tmp_path):
    options = (*EVERY, "train.save_every=0")
    whole, _ = begin(cache, tmp_path / "whole", *options, kind=Queueing)
    whole.run()
    stopped_after(begin(cache, tmp_path / "part", *options, kind=Queueing)[0], 10)
    part, _ = begin(cache, tmp_path / "part", *options, kind=Queueing, resume=True)
    assert part.queue.count_nonzero() == 4
    part.run()
    assert torch.equal(part.queue, whole.queue)
    assert read_state(tmp_path / "part" / "last")["task"]["filled"] == 4


def test_minutes_between_checkpoints(cache, tmp_path, monkeypatch):
    """A step of seven minutes, a checkpoint when ten have passed; one for another reason counts."""
    minutes = 0.0
    options = (*EVERY, "train.save_every=5", "train.save_minutes=10")
    monkeypatch.setattr(time, "monotonic", lambda: 60 * minutes)
    run, reporter = begin(cache, tmp_path / "run", *options)

    def step(*_):
        nonlocal minutes
        minutes += 7

    reporter.step = step
    run.run()
    steps = sorted(int(place.name[5:]) for place in (tmp_path / "run" / "checkpoints").iterdir())
    assert steps == [2, 4, 5, 7, 9, 10, 12]


def test_fp16_is_refused_where_there_is_no_gpu(cache, tmp_path):
    with pytest.raises(UsageError, match=r"^fp16 trains on a CUDA device alone; --precision fp32$"):
        begin(cache, tmp_path / "run", "train.precision=fp16")
    assert not (tmp_path / "run").exists()


def test_a_scaler_finds_its_scale_and_goes_on_with_it(cache, tmp_path, monkeypatch):
    """The scaler of fp16, on the CPU and in fp32, from a scale that overflows."""

    def scaling(**options):
        accelerator = Accelerator(**options)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
        return accelerator

    monkeypatch.setattr("vlcli.training.engine.Accelerator", scaling)
    options = (*EVERY, "train.save_every=0", "schedule.epochs=10")
    run, reporter = begin(cache, tmp_path / "whole", *options)
    before = run.model.text_projection.weight.clone()
    stepped, moved = run.stepped, []
    run.stepped = lambda: (stepped(), moved.append(not torch.equal(before, run.model.text_projection.weight)))
    run.run()
    assert moved[0] is False, "a step that overflows is lost"
    assert moved[-1] is True
    scales = [values["loss_scale"] for _, values in reporter.steps]
    assert scales[0] == 2.0**126
    scale = read_state(tmp_path / "whole" / "last")["scaler"]["scale"]
    assert 1 < scale < 2.0**127
    stopped_after(begin(cache, tmp_path / "part", *options)[0], 17)
    begin(cache, tmp_path / "part", *options, resume=True)[0].run()
    for whole, part in zip(files_of(tmp_path / "whole"), files_of(tmp_path / "part"), strict=True):
        assert_same(whole, part)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 30 MB; one checkpoint has room on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root mounts a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(file):
    """Write until the disk is full."""
    with contextlib.suppress(OSError), open(file, "wb", buffering=0) as out:
        while True:
            out.write(bytes(1 << 12))


def test_a_full_disk_stops_the_run_and_loses_nothing(cache, tmp_path, small_disk):
    options = (*EVERY, "train.save_every=4")
    begin(cache, tmp_path / "whole", *options)[0].run()
    one = sum(file.stat().st_size for file in (tmp_path / "whole" / "last").iterdir())
    assert 15e6 < one < 30e6
    out = small_disk / "run"
    place = out / "checkpoints" / "step-00000008"
    with pytest.raises(VlcliError) as caught:
        begin(cache, out, *options)[0].run()
    said = str(caught.value)
    assert said.startswith(f"cannot write {place}: ")
    assert "No space left on device" in said
    assert said.endswith("; --resume goes on from the last one")
    assert "\n" not in said
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]
    assert not check_checkpoint(out / "last", deep=True).findings
    # and not a byte left, so that the next log line has no room either
    run, _ = begin(cache, out, *options, resume=True)
    fill(small_disk / "filler")
    with pytest.raises(
        VlcliError, match=r"cannot write in .*: No space left on device; --resume goes on from"
    ):
        run.run()
    os.unlink(small_disk / "filler")
    subprocess.run(["mount", "-o", "remount,size=300m", small_disk], check=True)
    begin(cache, out, *options, resume=True)[0].run()
    for whole, part in zip(files_of(tmp_path / "whole"), files_of(out), strict=True):
        assert_same(whole, part)

"""Launched processes train as one does: the same losses, one voice, one stop."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gradients import CASES, shares, step
from safetensors.torch import load_file
from training_cases import CORPUS, TINY, Silent

from vlcli.errors import InputError, UsageError
from vlcli.models.dual import cat
from vlcli.training.objective import select
from vlcli.training.pretraining import Pretraining
from vlcli.training.processes import anywhere, mean, on_main
from vlcli.training.state import read_state

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accelerate_launch(processes, config="ddp"):
    """The command that examples/slurm/ uses, with its configurations."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", str(ROOT / "examples" / "slurm" / f"accelerate-{config}.yaml")]
    return [*launcher, f"--num_processes={processes}", f"--main_process_port={free_port()}"]


def start(tmp_path, out, processes, *settings, resume=False, config="ddp"):
    launcher = accelerate_launch(processes, config) if processes > 1 else [sys.executable]
    launcher += ["-m", "vlcli", "pretrain", "--recipe", "emoji-lit-filip", "--device", "cpu", "-o", out]
    options = [f"--set={x}" for x in (*TINY, "model.text.dropout=0.3", "schedule.steps=4", *settings)]
    corpus = ["--data", str(CORPUS), "--head", "48", "--map", "text=name,text_candidates=keywords"]
    options += ["--resume"] * resume
    return subprocess.Popen(
        [*launcher, *corpus, *options],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLCLI_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments, **options):
    """`start`, and wait for its good end; what was said."""
    process = start(*arguments, **options)
    told = process.communicate(timeout=600)[1]
    assert process.returncode == 0, told
    return told


def metrics(run):
    return [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]


def test_two_processes_train_as_one_does_dropout_and_all(tmp_path):
    told = {out: finish(tmp_path, out, processes) for out, processes in (("one", 1), ("two", 2))}
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4]
    for name in ("loss", "i2t_loss", "t2i_loss", "grad_norm", "temperature", "lr"):
        assert [x[name] for x in two] == pytest.approx([x[name] for x in one], rel=1e-4)
    assert "on 2 process(es)" in told["two"]
    assert told["two"].count("4 steps; two") == 1, "only the first process speaks"


def select_share_by_share(shares):
    """What processes with `scope = "local"` do, each with its share of the batch, on one."""

    def select_each(image, text, config):
        each = torch.arange(len(text.mask)).chunk(shares)
        parts = [select(image.rows(rows), text.rows(rows), config) for rows in each]
        return tuple(cat(side) for side in zip(*parts, strict=True))

    return select_each


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds for a case, and for "selected-local" one that selects in so many shares."""
    place, found = tmp_path_factory.mktemp("alone"), {}

    def result(name, shares):
        key = name, shares if name == "selected-local" else 1
        if key not in found:
            with pytest.MonkeyPatch.context() as patch:
                if name == "selected-local":
                    patch.setattr("vlcli.training.objective.select", select_share_by_share(shares))
                found[key] = step(place / f"{shares}" / name, place / "cache", *CASES[name])
        return dict(found[key])

    return result


@pytest.mark.parametrize("processes", [2, 4])
def test_loss_and_every_gradient_equal_those_of_one_process(tmp_path, processes, alone):
    """In float32 to 1e-5, for every kind of objective; a gradient that ought to be nothing is so to 1e-7 of the model's
    largest. fp16 as well: what is rounded is the same on one process as on many."""
    script = os.path.join(os.path.dirname(__file__), "gradients.py")
    process = subprocess.run(
        [*accelerate_launch(processes), script, tmp_path, tmp_path / "cache"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr
    many = torch.load(tmp_path / "results.pt", weights_only=True)
    losses = {}
    for name in CASES:
        one = alone(name, processes)
        losses[name] = one["loss"].item()
        assert {"loss", "scale", "log_scale", "text_projection.weight"} <= one.keys() == many[name].keys()
        for key in ("loss", "scale"):
            assert many[name][key].item() == pytest.approx(one.pop(key).item(), rel=1e-5), f"{name}: {key}"
        largest = max(gradient.abs().max().item() for gradient in one.values())
        for key, gradient in one.items():
            bound = max(1e-5 * gradient.abs().max().item(), 1e-7 * largest)
            apart = (many[name][key] - gradient).abs().max().item()
            assert apart <= bound, f"{name}: {key} differs by {apart:g}, more than {bound:g}"
    assert len(set(losses.values())) == len(CASES), "each is another objective"
    each = [orjson.loads((tmp_path / f"shares-{r}.json").read_bytes()) for r in range(processes)]
    epochs = shares(tmp_path / "order", tmp_path / "cache")
    together = [list(itertools.chain(*parts)) for parts in zip(*each, strict=True)]
    assert together == epochs, "none twice, none lost, in one order"
    assert len(epochs) == 12
    assert len(set(itertools.chain(*epochs[:4]))) == 58


def resumed_on(tmp_path, whole, processes):
    """The losses of a run of `whole` processes, and of those that go on from its step 3 on others; and their places."""
    options = ["train.keep=9", "schedule.steps=5"]
    finish(tmp_path, "whole", whole, *options)
    for n in processes:
        shutil.copytree(tmp_path / "whole", tmp_path / f"on-{n}", symlinks=True)
        shutil.rmtree(tmp_path / f"on-{n}" / "checkpoints" / "step-00000005")
        finish(tmp_path, f"on-{n}", n, *options, resume=True)
    places = [tmp_path / "whole", *(tmp_path / f"on-{n}" for n in processes)]
    return [[line["loss"] for line in metrics(place)] for place in places], places


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_bit_for_bit_and_on_one_process_too(tmp_path):
    losses, places = resumed_on(tmp_path, 2, (2, 1))
    whole, two = ((place / "last" / "model.safetensors").read_bytes() for place in places[:2])
    assert whole == two
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_a_run_of_four_processes_resumes_on_as_many_and_on_fewer(tmp_path):
    """The same pairs in the same order. Not to the bit: DDP arranges gradients anew after its first step, and the sum
    of four numbers depends on their order."""
    losses, _ = resumed_on(tmp_path, 4, (4, 2, 1))
    for others in losses[1:]:
        assert others == pytest.approx(losses[0], rel=1e-4)


def assert_alike(one, other):
    """Checkpoints of the same names and shapes, and of the same numbers but for the order of sums."""
    weights = [load_file(place / "model.safetensors") for place in (one, other)]
    states = [read_state(place) for place in (one, other)]
    moments = [
        {f"{i} {name}": x for i, entry in state["optimizer"]["state"].items() for name, x in entry.items()}
        for state in states
    ]
    for a, b in (weights, moments, [state["weights"] for state in states]):
        assert a.keys() == b.keys()
        assert a
        for name in a:
            # A key's bias changes no softmax: its gradient is rounding alone, and AdamW makes whole steps of it.
            bound = 1e-2 if name.endswith("qkv.bias") else 1e-5
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=bound)
    assert states[0]["step"] == states[1]["step"]


@pytest.mark.slow
def test_processes_that_share_out_the_weights_write_checkpoints_of_one(tmp_path):
    """FSDP trains as one process does, and either goes on from what the other saved."""
    options = ["train.keep=9", "train.save_every=2", "train.ema=0.9", "model.text.layers=2"]
    finish(tmp_path, "one", 1, *options)
    finish(tmp_path, "sharded", 2, *options, config="fsdp")
    for before, after, processes in (("one", "one-sharded", 2), ("sharded", "sharded-one", 1)):
        shutil.copytree(tmp_path / before, tmp_path / after, symlinks=True)
        shutil.rmtree(tmp_path / after / "checkpoints" / "step-00000004")
        finish(tmp_path, after, processes, *options, resume=True, config="fsdp")
    one = metrics(tmp_path / "one")
    for out in ("sharded", "one-sharded", "sharded-one"):
        lines = metrics(tmp_path / out)
        for name in ("loss", "grad_norm", "temperature"):
            assert [x[name] for x in lines] == pytest.approx([x[name] for x in one], rel=1e-4), out
        assert_alike(tmp_path / "one" / "last", tmp_path / out / "last")


def test_sigterm_stops_all_processes_at_one_step_with_a_checkpoint(tmp_path):
    process = start(tmp_path, "run", 2, "schedule.steps=100000", "train.save_every=0", "schedule.epochs=1")
    file = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    step = metrics(tmp_path / "run")[-1]["step"]
    assert (tmp_path / "run" / "last").readlink().name == f"step-{step:08d}"


def refuse():
    raise UsageError("not here")


class Store:
    """A feature store whose picture is damaged, as the first process to encode finds out."""

    def add(self, table, progress=None, bad=None):
        if dist.get_rank() == 0:
            raise InputError("damaged png")
        raise AssertionError("the others would go on to encode")


def worker(rank, port, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {
        "from_main": on_main(lambda: f"rank {rank}"),
        "mean": mean(torch.tensor([1.0 + rank, torch.nan if rank else 0.0])).tolist(),
        "anywhere": (anywhere([rank == 1, False], torch.device("cpu"))),
    }
    try:
        on_main(refuse)
    except (UsageError, SystemExit) as error:
        found["refused"] = (type(error).__name__, getattr(error, "code", None))
    try:
        Pretraining._encode(SimpleNamespace(reporter=Silent()), Store(), None, None)
    except (InputError, SystemExit) as error:
        found["damaged"] = (type(error).__name__, getattr(error, "code", None))
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_agree(tmp_path):
    mp.spawn(worker, args=(free_port(), str(tmp_path)), nprocs=2)
    for rank, refused in ((0, ("UsageError", None)), (1, ("SystemExit", 2))):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["from_main"] == "rank 0"
        assert found["mean"][0] == 1.5
        assert found["mean"][1] != found["mean"][1], "not finite anywhere is not finite everywhere"
        assert found["anywhere"] == [True, False]
        assert found["refused"] == refused
        assert found["damaged"] == (("SystemExit", 3) if rank else ("InputError", None))


def test_alone_nothing_is_sent():
    x = torch.tensor([1.0])
    assert mean(x) is x
    assert on_main(lambda: 7) == 7
    assert anywhere([True, False], torch.device("cpu")) == [True, False]

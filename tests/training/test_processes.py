"""Two launched processes train as one does: the same losses, one voice, one stop."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import orjson
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gradients import CASES, step
from training_cases import CORPUS, TINY, Silent

from vlcli.errors import InputError, UsageError
from vlcli.models.dual import cat
from vlcli.training.objective import select
from vlcli.training.pretraining import Pretraining
from vlcli.training.processes import anywhere, mean, on_main

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accelerate_launch(processes):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=1"]
    launcher += ["--mixed_precision=no", "--dynamo_backend=no", f"--num_processes={processes}"]
    return [*launcher, f"--main_process_port={free_port()}"]


def start(tmp_path, out, processes, *settings, resume=False):
    launcher = accelerate_launch(processes) if processes > 1 else [sys.executable]
    launcher += ["-m", "vlcli"]
    options = [f"--set={x}" for x in (*TINY, "model.text.dropout=0.3", "schedule.steps=4", *settings)]
    corpus = ["--data", str(CORPUS), "--head", "48", "--map", "text=name,text_candidates=keywords"]
    options += ["--resume"] * resume
    return subprocess.Popen(
        [
            *launcher,
            "pretrain",
            "--recipe",
            "emoji-lit-filip",
            *corpus,
            *options,
            "--device",
            "cpu",
            "-o",
            out,
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLCLI_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )


def metrics(run):
    return [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]


def test_two_processes_train_as_one_does_dropout_and_all(tmp_path):
    told = {}
    for out, processes in (("one", 1), ("two", 2)):
        process = start(tmp_path, out, processes)
        told[out] = process.communicate(timeout=300)[1]
        assert process.returncode == 0, told[out]
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4]
    for name in ("loss", "i2t_loss", "t2i_loss", "grad_norm", "temperature", "lr"):
        assert [x[name] for x in two] == pytest.approx([x[name] for x in one], rel=1e-4)
    assert "on 2 process(es)" in told["two"]
    assert told["two"].count("4 steps; two") == 1, "only the first process speaks"


def select_share_by_share(image, text, config):
    """What two processes with `scope = "local"` do, each with its half of the batch, on one."""
    half = len(text.mask) // 2
    shares = [
        select(image.rows(rows), text.rows(rows), config) for rows in (slice(0, half), slice(half, None))
    ]
    return tuple(cat(side) for side in zip(*shares, strict=True))


def test_loss_and_every_gradient_of_two_processes_equal_those_of_one(tmp_path, monkeypatch):
    """In float32 to 1e-5, for every kind of objective; a gradient that ought to be nothing is so to 1e-7 of the model's
    largest. fp16 as well: what is rounded is the same on one process as on two."""
    script = os.path.join(os.path.dirname(__file__), "gradients.py")
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    process = subprocess.run(
        [*accelerate_launch(2), script, tmp_path / "two", tmp_path / "cache"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    two = torch.load(tmp_path / "two" / "results.pt", weights_only=True)
    losses = {}
    for name, overrides in CASES.items():
        with monkeypatch.context() as patch:
            if name == "selected-local":
                patch.setattr("vlcli.training.objective.select", select_share_by_share)
            one = step(tmp_path / "one" / name, tmp_path / "cache", *overrides)
        losses[name] = one["loss"].item()
        assert {"loss", "scale", "log_scale", "text_projection.weight"} <= one.keys() == two[name].keys()
        for key in ("loss", "scale"):
            assert two[name][key].item() == pytest.approx(one.pop(key).item(), rel=1e-5), f"{name}: {key}"
        largest = max(gradient.abs().max().item() for gradient in one.values())
        for key, gradient in one.items():
            bound = max(1e-5 * gradient.abs().max().item(), 1e-7 * largest)
            apart = (two[name][key] - gradient).abs().max().item()
            assert apart <= bound, f"{name}: {key} differs by {apart:g}, more than {bound:g}"
    assert len(set(losses.values())) == len(CASES), "each is another objective"


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_bit_for_bit_and_on_one_process_too(tmp_path):
    options = ["train.keep=9", "schedule.steps=5"]
    assert start(tmp_path, "whole", 2, *options).wait(timeout=120) == 0
    for out in ("two", "one"):
        shutil.copytree(tmp_path / "whole", tmp_path / out, symlinks=True)
        shutil.rmtree(tmp_path / out / "checkpoints" / "step-00000005")
        assert start(tmp_path, out, 2 if out == "two" else 1, *options, resume=True).wait(timeout=120) == 0
    whole, two = ((tmp_path / d / "last" / "model.safetensors").read_bytes() for d in ("whole", "two"))
    assert whole == two
    losses = [[line["loss"] for line in metrics(tmp_path / d)] for d in ("whole", "one")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


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

    def add(self, table, progress=None):
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
        Pretraining._encode(SimpleNamespace(reporter=Silent()), Store(), None)
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

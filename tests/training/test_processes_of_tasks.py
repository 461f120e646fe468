"""Captioners, priors, and keys and values: two launched processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch.distributed as dist
from diffusion_cases import save_diffusion, save_encoder, write_pairs
from safetensors.torch import load_file
from test_processes import accelerate_launch

from vlcli.models.checkpoint import save_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "generation"))
from caption_models import r2d2
from unclip_cases import PRIOR, dual, saved

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")

SMALL = ("data.batch_size=4", "data.workers=0", "schedule.steps=3", "schedule.warmup_steps=1")
SMALL += ("train.log_every=1", "train.evaluate_every=3", "train.precision=fp32")


def prior(folder):
    shape = [f"model.{key}={value}" for key, value in PRIOR.items()]
    return [saved(dual(), folder / "clip"), "--task=t2i", "--stage=prior", "--recipe=r2d2-t2i-prior"], shape


def caption(folder):
    """Its cross encoder drops states, by the pairs' keys."""
    save_checkpoint(r2d2(dropout=0.1), folder / "r2d2", recipe={}, lineage={})
    return [folder / "r2d2", "--task=caption", "--recipe=emoji-caption"], []


def key_values(folder):
    place, by = save_diffusion(folder / "sd"), save_encoder(folder / "encoder")
    return [place, "--task=diffusion-kv", "--recipe=emoji-diffusion", "--encoder", by], ["diffusion.size=16"]


TASKS = {"caption": caption, "prior": prior, "diffusion-kv": key_values}


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_train_as_one_does(task, tmp_path):
    data = write_pairs(tmp_path / "pairs.jsonl")
    what, settings = TASKS[task](tmp_path)
    for out, launcher in (("one", [sys.executable]), ("two", accelerate_launch(2))):
        line = [*launcher, "-m", "vlcli", "finetune", *what, "--device=cpu", "--data", data, "--val", data]
        line += [*(f"--set={x}" for x in (*SMALL, *settings)), "-o", tmp_path / out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "VLCLI_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(line, env=environment, stderr=subprocess.PIPE, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    told = {}
    for out in ("one", "two"):
        found = [orjson.loads(x) for x in (tmp_path / out / "metrics.jsonl").open("rb")]
        told[out] = [value for x in found for key, value in x.items() if key in ("loss", "grad_norm")]
    assert len(told["one"]) >= 6, "a loss and a norm a step"
    assert told["two"] == pytest.approx(told["one"], rel=1e-4)
    first, second = (load_file(tmp_path / out / "last" / "model.safetensors") for out in ("one", "two"))
    assert first.keys() == second.keys()

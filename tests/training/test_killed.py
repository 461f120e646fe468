"""A run that is killed by SIGKILL at any moment, and resumed, ends as if nothing had happened: to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch

HERE = Path(__file__).parent
TIMES = {"pairs_per_second", "data_wait", "data_seconds", "compute_seconds"}


def state_of(run):
    """Everything of a finished run but its times."""
    lines = [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    found = {
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "links": {name: os.readlink(run / name) for name in ("best", "last")},
        "recipe": (run / "recipe.toml").read_bytes(),
        "names": sorted(path.name for path in (run / "checkpoints").iterdir()),
    }
    for step in (run / "checkpoints").iterdir():
        found[step.name] = {
            file.name: file.read_bytes() for file in step.iterdir() if file.name != "training.pt"
        }
        del found[step.name]["SHA256SUMS"]
        state = torch.load(step / "training.pt", weights_only=True)
        found[f"{step.name} optimizer"] = [
            {name: x.tolist() for name, x in tensors.items()}
            for tensors in state["optimizer"]["state"].values()
        ]
        found[f"{step.name} best"] = (state["best"], state["best_step"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", [("random", "0"), ("points",)], ids=lambda mode: mode[0])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, mode):
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_runs.py"), str(tmp_path), *mode],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20, "it was killed"
    whole = state_of(tmp_path / "whole")
    parts = sorted(tmp_path.glob("part-*"))
    assert parts
    for run in parts:
        part = state_of(run)
        assert part.keys() == whole.keys()
        for name in whole:
            assert part[name] == whole[name], (run.name, name)

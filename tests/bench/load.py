"""Memory and time of `vlcli.load` on a checkpoint of random weights, against the size of its file.

    python tests/bench/load.py [--gigabytes 1]

Each way has a process of its own, in which torch and all else is imported, and a small checkpoint loaded, before
anything is measured; then the model is loaded and every weight is read once, so that no page is left out of the count.
`copied` is what loading was made of before: a model with its initial values, a dict of tensors, a copy between them.
Peak memory is that of the whole process above what it had at the start, pages of the mapped file included.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import vlcli
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder

WIDTH = 1024


def save(place: Path, pieces: int, width: int = WIDTH) -> None:
    """A dual encoder of which the embedding table is nearly all."""
    config = {
        "similarity": "global",
        "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
        "text": {"width": width, "layers": 1, "heads": 8, "vocabulary": pieces},
    }
    save_checkpoint(DualEncoder(DualEncoderConfig.model_validate(config)), place, recipe={}, lineage={})


def copied(place: Path) -> torch.nn.Module:
    config = json.loads((place / "config.json").read_text())["architecture"]
    model = DualEncoder(DualEncoderConfig.model_validate(config))
    model.load_state_dict(load_file(place / "model.safetensors"))
    return model


def peak_kib() -> int:
    """Of this process alone; getrusage would begin with the peak of its parent. Linux."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


@torch.no_grad()
def measure(name: str, small: Path, place: Path) -> tuple[float, float]:
    """Seconds, and peak memory in MiB above the start."""
    load = {"vlcli": vlcli.load, "copied": copied}[name]
    load(small)
    before, start = peak_kib(), time.perf_counter()
    model = load(place)
    took = time.perf_counter() - start
    for tensor in model.state_dict().values():
        tensor.view(torch.uint8 if tensor.dim() else tensor.dtype).max()
    return took, (peak_kib() - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--measure", nargs=3)
    asked = parser.parse_args()
    if asked.measure:
        name, small, place = asked.measure
        print(json.dumps(measure(name, Path(small), Path(place))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        small, place = Path(temporary) / "small", Path(temporary) / "large"
        save(small, 21128, 64)
        save(place, round(asked.gigabytes * 1e9 / 4 / WIDTH))
        size = (place / "model.safetensors").stat().st_size / 2**20
        print(f"weights of {size:,.0f} MiB")
        for name in ("vlcli", "copied", "vlcli", "copied"):
            command = [sys.executable, __file__, "--measure", name, str(small), str(place)]
            took, memory = json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout
            )
            print(f"{name:8} {took:6.2f} s, peak memory {memory:7,.0f} MiB = {memory / size:.2f} × the file")


if __name__ == "__main__":
    main()

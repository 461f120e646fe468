"""Starts `embed` in the working directory six times, kills it at random moments, and prints how many parts stood.

A process of its own: it forks, which what has used polars must not. Run as `python killed_embed.py OUT WHOLE` in a
folder of `test_embed_pairs.py`; WHOLE is what an undisturbed run has written.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from test_embed_pairs import embed, tree
from tiny_models import tiny

from vlcli.evaluation.vectors import ModelVectors


def main(out: Path, whole: Path) -> None:
    torch.set_num_threads(1)  # or the fork's OpenMP waits for threads that it does not have
    encoder, rng, right = ModelVectors(tiny("global")), random.Random(3), tree(whole)
    for kill in range(6):
        pid = os.fork()
        if pid == 0:
            try:
                embed(encoder, out, per_file=2, batch=2)
            finally:
                os._exit(0)
        marks = len(list(out.glob("_vlcli/part-*.json")))
        while len(list(out.glob("_vlcli/part-*.json"))) == marks and not (out / "embed.json").exists():
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.004))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left = {name: data for name, data in tree(out).items() if not name.endswith(".tmp")}
        assert left.items() <= right.items()
        print(sum(name.startswith("_vlcli/part-") for name in left), flush=True)
        if "embed.json" in left and kill < 5:
            shutil.rmtree(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

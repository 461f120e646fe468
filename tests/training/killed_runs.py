"""Run by test_killed.py: a tiny run whose process is killed again and again, and resumed each time.

python killed_runs.py DIR random SEED | points. Prints how often it was killed. Every attempt is a fork of this process,
which has imported everything and computed nothing.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from training_cases import Silent, pairs, recipe

from vlcli.training.loop import Pretraining

SETTINGS = (
    "model.text.dropout=0.2",
    "train.save_every=2",
    "train.evaluate_every=3",
    "train.keep=2",
    "schedule.epochs=3",
    "data.batch_size=8",
)


def train(root: Path, out: str) -> None:
    torch.set_num_threads(1)
    run = Pretraining(
        recipe(root, *SETTINGS),
        pairs(32),
        root / out,
        Silent(),
        validation=pairs(12),
        device="cpu",
        resume=True,
    )
    run.run()


def die_at(point: int) -> None:
    """SIGKILL before the `point`-th change of a name: what a checkpoint, a link and a log line are made by."""
    seen = 0

    def counted(function):
        def wrapper(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapper

    for name in ("replace", "fsync", "unlink", "rename"):
        setattr(os, name, counted(getattr(os, name)))
    Path.symlink_to = counted(Path.symlink_to)


def attempt(root: Path, out: str, *, after: float | None = None, point: int | None = None) -> bool:
    """One process; whether it came to the end of the run."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if point is not None:
                die_at(point)
            train(root, out)
            code = 0
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"exit {os.WEXITSTATUS(status)}"
    return True


def main(root: Path, mode: str, seed: str = "0") -> None:
    assert attempt(root, "whole")
    kills = 0
    if mode == "random":
        started = time.monotonic()
        assert attempt(root, "timed")  # its features are there already, as they are for what follows
        length = time.monotonic() - started
        dice = random.Random(int(seed))
        while kills < 10 and not attempt(root, "part", after=length * dice.uniform(0.1, 0.8)):
            kills += 1
        attempt(root, "part")
    else:
        # The k-th attempt dies at its k-th change of a name, so that in time every kind of change has been cut short.
        while not attempt(root, "part", point=kills + 1):
            kills += 1
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

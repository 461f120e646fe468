"""Run by test_killed.py: a tiny run whose process is killed again and again, and resumed each time.

python killed_runs.py DIR random SEED | points. Prints how often it was killed, and makes DIR/whole, which was not, and
DIR/part-1 and so on, which were. Every attempt is a fork of this process, which has imported everything and computed
nothing.

A random moment is counted in calls of Python functions, not in seconds: a busy machine changes nothing about it.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from training_cases import Silent, pairs, recipe

from vlcli.training.pretraining import Pretraining

KILLS = 20
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


class Calls:
    """Counts the main thread's calls; some thousandths of a second after number `last` the process dies."""

    def __init__(self, last: int, delay: float = 0.0) -> None:
        self.seen, self.last, self.delay = 0, last, delay

    def __call__(self, frame: object, event: str, argument: object) -> None:
        self.seen += 1
        if self.seen == self.last:
            threading.Thread(target=self.die, daemon=True).start()

    def die(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), signal.SIGKILL)


def attempt(root: Path, out: str, *, calls: Calls | None = None, point: int | None = None) -> bool:
    """One process; whether it came to the end of the run."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if point is not None:
                die_at(point)
            if calls is not None:
                sys.setprofile(calls)
            train(root, out)
            if calls is not None:
                sys.setprofile(None)
                (root / "calls").write_text(str(calls.seen))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"exit {os.WEXITSTATUS(status)}"
    return True


def main(root: Path, mode: str, seed: str = "0") -> None:
    assert attempt(root, "whole")
    kills, runs = 0, 1
    if mode == "random":
        # the features are there already, as they are for what follows
        assert attempt(root, "counted", calls=Calls(0))
        all_of_them = int((root / "calls").read_text())
        dice = random.Random(int(seed))
        while kills < KILLS:
            moment = Calls(int(all_of_them * dice.uniform(0.05, 0.7)), dice.uniform(0, 0.004))
            if attempt(root, f"part-{runs}", calls=moment):
                runs += 1
            else:
                kills += 1
        attempt(root, f"part-{runs}")
    else:
        # The k-th attempt dies at its k-th change of a name, so that in time every kind of change has been cut short.
        while not attempt(root, "part-1", point=kills + 1):
            kills += 1
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

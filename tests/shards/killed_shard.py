"""Run as a program: SIGKILL runs of `shard` at random moments, each continuing what the one before left.

    python killed_shard.py ROWS OUT WHOLE KILLS KEPT

Imports are made once and every run is a fork, so that a kill falls into the work and not into the start. After
each kill nothing may stand under a final name that differs from the uninterrupted run's. Prints how many
shards stood after each kill; the first state with some shards is copied to KEPT.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from shard_cases import shard, tree


def fork_run(rows: Path, output: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            shard(rows, output, per_shard=12, max_bad="4", jobs=1)
            code = 0
        finally:
            os._exit(code)
    return pid


def begun(pid: int, output: Path, before: int) -> bool:
    """Wait until the run has claimed the directory; False when it has ended already."""
    while claimed(output) == before:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.001)
    return True


def claimed(output: Path) -> int:
    run = output / "_vlcli" / "run.json"
    return run.stat().st_mtime_ns if run.exists() else 0


def work(rows: Path, output: Path) -> float:
    """Seconds from the first shard to the end of a run that nobody disturbs."""
    pid = fork_run(rows, output)
    assert begun(pid, output, 0)
    start = time.monotonic()
    assert os.waitpid(pid, 0)[1] == 0
    took = time.monotonic() - start
    shutil.rmtree(output)
    return took


def main() -> None:
    rows, output, whole, kept = (Path(sys.argv[i]) for i in (1, 2, 3, 5))
    right, rng, kills, stood = tree(whole), random.Random(7), int(sys.argv[4]), []
    took = work(rows, output)
    while len(stood) < kills:
        before = claimed(output)
        pid = fork_run(rows, output)
        if len(stood) % 4:  # every fourth anywhere, also before it has begun
            begun(pid, output, before)
        time.sleep(rng.uniform(0, took / 3))
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] == 0:  # it was faster
            assert tree(output) == right
            shutil.rmtree(output)
            continue
        left = tree(output) if output.exists() else {}
        assert "sizes.json" not in left
        for name, data in left.items():
            assert name.endswith(".tmp") or data == right[name], name
        stood.append(sum(name.endswith("_stats.json") for name in left))
        if stood[-1] and not kept.exists():
            shutil.copytree(output, kept)
    print(*stood)
    assert os.waitpid(fork_run(rows, output), 0)[1] == 0
    assert tree(output) == right


if __name__ == "__main__":
    main()

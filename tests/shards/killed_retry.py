"""Run as a program: SIGKILL runs of `shard --retry-failed` at random moments, each continuing the one before.

    python killed_retry.py ROWS OUT WHOLE KILLS

OUT is a finished directory with failed rows whose images have come meanwhile, WHOLE what a run writes now. After
each kill every file is the old or the new one, and no tar is lost. Once a round came to its end, it begins again
with OUT as it was. Prints how many shards were new after each kill.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from killed_shard import begun, claimed
from shard_cases import shard, tree


def fork_run(rows: Path, output: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            shard(rows, output, per_shard=6, max_bad="4", jobs=1, retry=True)
            code = 0
        finally:
            os._exit(code)
    return pid


def main() -> None:
    rows, output, whole = (Path(argument) for argument in sys.argv[1:4])
    kept = output.with_name("kept")
    shutil.copytree(output, kept)
    old, new, rng, kills = tree(output), tree(whole), random.Random(3), []

    def again() -> None:
        shutil.rmtree(output)
        shutil.copytree(kept, output)

    start = time.monotonic()
    assert os.waitpid(fork_run(rows, output), 0)[1] == 0
    took = time.monotonic() - start
    assert tree(output) == new
    again()
    while len(kills) < int(sys.argv[4]):
        before = claimed(output)
        pid = fork_run(rows, output)
        if len(kills) % 4:
            begun(pid, output, before)
        time.sleep(rng.uniform(0, took / 2))
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] == 0:  # it was faster
            assert tree(output) == new
            again()
            continue
        left = {name: data for name, data in tree(output).items() if not name.endswith(".tmp")}
        assert left.keys() | {"sizes.json"} == old.keys()
        for name, data in left.items():
            assert data in (old[name], new[name]), name
        if "sizes.json" in left:  # whoever says that all is whole says so of one state
            assert left in (old, new)
        kills.append(sum(name.endswith(".tar") and data != old[name] for name, data in left.items()))
        if rng.random() < 0.2:
            again()
    print(*kills)
    assert os.waitpid(fork_run(rows, output), 0)[1] == 0
    assert tree(output) == new


if __name__ == "__main__":
    main()

"""Run as a program: three parts of a `shard` run at once, some SIGKILLed and all run again until they end.

    python killed_parts.py ROWS OUT WHOLE KILLS

Prints how many runs were killed and how often two ran at the same time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from shard_cases import tree

from vlcli.images.resolve import ImageReader
from vlcli.records.bad import BadRows
from vlcli.records.part import Part
from vlcli.records.parted import PartedInput
from vlcli.records.pieces import Reading
from vlcli.shards.dataset import Sharder
from vlcli.shards.output import Options
from vlcli.shards.part_output import PartOutput

PARTS = 3


def fork_part(rows: Path, output: Path, number: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            source = PartedInput([str(rows)], Reading(image_bytes=True))
            claim = PartOutput(output, Options(per_shard=6), Part(number, PARTS), source)
            bad = BadRows("20")
            with ImageReader() as reader:
                Sharder(claim).write(source.batches(claim.rows, bad), reader, bad, jobs=1)
            code = 0
        finally:
            os._exit(code)
    return pid


def main() -> None:
    rows, output, whole = (Path(argument) for argument in sys.argv[1:4])
    right, rng = tree(whole), random.Random(7)
    wanted, killed, together = int(sys.argv[4]), 0, 0
    start = time.monotonic()
    assert os.waitpid(fork_part(rows, output, 0), 0)[1] == 0
    took = time.monotonic() - start
    while killed < wanted:
        shutil.rmtree(output)
        left = set(range(PARTS))
        for _ in range(4):
            pids = {fork_part(rows, output, number): number for number in left}
            together += len(pids) > 1
            time.sleep(rng.uniform(0, took * 1.5))
            for pid in rng.sample(sorted(pids), (len(pids) + 1) // 2):
                os.kill(pid, signal.SIGKILL)
            for pid, number in pids.items():
                status = os.waitpid(pid, 0)[1]
                assert status in (0, signal.SIGKILL), status
                killed += status != 0
                if status == 0:
                    left.discard(number)
            for name, data in (tree(output) if output.exists() else {}).items():
                assert name.endswith(".tmp") or data == right[name], name
        for pid in [fork_part(rows, output, number) for number in left]:
            assert os.waitpid(pid, 0)[1] == 0
        assert tree(output) == right
    print(killed, together)


if __name__ == "__main__":
    main()

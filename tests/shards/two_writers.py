"""Run as a program: pairs of `shard` runs on one directory, begun at the same moment, again and again.

    python two_writers.py ROWS OUT WHOLE ROUNDS

Imports are made once and every run is a fork, so that both are in the same place at the same time. Prints the
exit codes of each round and how often a run was refused because the other one held the lock.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from pathlib import Path

from shard_cases import shard, tree

from vlcli.errors import UsageError


def fork_run(rows: Path, output: Path, at: float, says: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            while time.monotonic() < at:
                pass
            shard(rows, output, per_shard=3, jobs=1)
            code = 0
        except UsageError as error:
            os.write(says, f"{error}\n".encode())
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def main() -> None:
    rows, output, whole = (Path(argument) for argument in sys.argv[1:4])
    right = tree(whole)
    reads, says = os.pipe()
    for round_ in range(int(sys.argv[4])):
        at = time.monotonic() + 0.05
        pids = [fork_run(rows, output, at, says) for _ in range(2)]
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
        print(*codes)
        assert tree(output) == right, round_
        shutil.rmtree(output)
    os.close(says)
    with os.fdopen(reads) as file:
        said = file.read().splitlines()
    print(*said, sep="\n", file=sys.stderr)
    print("locked", sum("another run" in line for line in said))


if __name__ == "__main__":
    main()

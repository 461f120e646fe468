"""`check` and `check --deep` on gigabytes of shards, against what reads the same bytes: cat, tar, sha256sum.

    python tests/bench/check.py [--gigabytes 2] [--rounds 3]

Writes the shards into a temporary directory, 2,500 pictures of 100 kB in each, and removes them at the end. All run in
turns on a warm page cache, so that the disk counts for none; the best of all rounds is shown, with the processor's time
beside it, since other work on the machine shows in the clock alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shard_resize import drawings, jpegs

PER_SHARD = 2500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=2.1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    vlcli = [sys.executable, "-m", "vlcli"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = jpegs(drawings(12), 640, 480, 100_000)
        for i, data in enumerate(files):
            (folder / f"{i}.jpg").write_bytes(data)
        number = round(asked.gigabytes * 1e9 / (sum(map(len, files)) / len(files)))
        with open(folder / "rows.jsonl", "w") as rows:
            for i in range(number):
                row = {"image": f"{i % len(files)}.jpg", "text": [f"第{i}张图", f"图{i}"], "score": i / 7}
                rows.write(json.dumps(row) + "\n")
        shard = [*vlcli, "shard", "rows.jsonl", "-o", "shards", "--per-shard", str(PER_SHARD), "-q"]
        subprocess.run(shard, cwd=folder, check=True)
        tars = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]
        size = sum(Path(tar).stat().st_size for tar in tars)
        print(f"{len(tars)} shards, {number:,} samples, {size / 1e9:.2f} GB")
        commands = {
            "cat": ["cat", *tars],
            "tar tf": ["sh", "-c", 'for tar; do tar tf "$tar"; done', "sh", *tars],
            "sha256sum": ["sha256sum", *tars],
            "vlcli --version": [*vlcli, "--version"],
            "vlcli check": [*vlcli, "check", "shards"],
            "vlcli check --deep -j 1": [*vlcli, "check", "--deep", "-j", "1", "shards"],
            "vlcli check --deep -j 2": [*vlcli, "check", "--deep", "-j", "2", "shards"],
        }
        best = {name: (float("inf"), float("inf")) for name in commands}
        for _ in range(asked.rounds):
            for name, command in commands.items():
                before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                best[name] = min(best[name][0], took), min(best[name][1], used)
        for name, (took, used) in best.items():
            print(f"{name:24} {took:6.2f} s, {size / took / 1e9:6.2f} GB/s; processor {used:6.2f} s")


if __name__ == "__main__":
    main()

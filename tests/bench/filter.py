"""`vlcli filter --preset wukong` beside the script that one would write instead, in one run.

The script reads all into memory with polars and applies the same rules (names by jieba.posseg where asked). Each is a
process of its own; what is printed is rows a second of wall time, the processors' seconds, and the peak of the memory
of the whole process tree (proportional set size, sampled ten times a second). The floor is reading alone: every column
of the Parquet file, or orjson on every line.

Run as `python tests/bench/filter.py CORPUS.parquet [--runs 3] [--formats parquet,jsonl,arrow] [--names] [-j 2]`; the
corpus is one of `filter_corpus.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import polars as pl

SCRIPT = r"""
import sys
import polars as pl
source, target, names = sys.argv[1:4]
read = {"parquet": pl.read_parquet, "jsonl": pl.read_ndjson, "arrow": pl.read_ipc_stream}[source.rsplit(".", 1)[1]]
d = read(source)
d = d.filter(pl.int_range(pl.len()).over("query") < 1000)
plain = pl.col("text").str.normalize("NFC").str.strip_chars()
d = d.with_columns(plain.alias("plain")).filter(pl.len().over("plain") <= 10).drop("plain")
n = pl.col("text").str.count_matches(r"\p{Han}")
small, large = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
name = r"(?i)^[\w\-. ]+\.(jpe?g|png|gif|bmp|webp|tiff?)$"
d = d.filter((small > 200) & (large / small <= 3) & (n >= 1) & (n < 32) & ~pl.col("text").str.contains(name))
if names == "names":
    import jieba.posseg
    mask = lambda t: "".join("〈人名〉" if w.flag == "nr" else w.word for w in jieba.posseg.cut(t))
    d = d.with_columns(pl.col("text").map_elements(mask, return_dtype=pl.String()))
{"parquet": d.write_parquet, "jsonl": d.write_ndjson, "arrow": d.write_ipc_stream}[target.rsplit(".", 1)[1]](target)
"""
FLOOR = r"""
import sys
source = sys.argv[1]
if source.endswith(".parquet"):
    import pyarrow.parquet as pq
    for batch in pq.ParquetFile(source).iter_batches(use_threads=False): pass
elif source.endswith(".arrow"):
    import pyarrow as pa
    for batch in pa.ipc.open_stream(source): pass
else:
    import orjson
    for line in open(source, "rb"): orjson.loads(line)
"""


class Memory(threading.Thread):
    """The peak of a process tree's proportional set size, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, False

    def run(self) -> None:
        while not self.ended:
            self.peak = max(self.peak, sum(map(pss, tree(self.pid))))
            time.sleep(0.1)


def tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(p for child in children for p in tree(int(child)))]


def pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def run(command: list[str]) -> tuple[float, float, int]:
    """Seconds of wall time, seconds of all processors, bytes."""
    before, began = os.times(), time.perf_counter()
    with subprocess.Popen(command) as process:
        memory = Memory(process.pid)
        memory.start()
        code = process.wait()
        memory.ended = True
    if code:
        sys.exit(f"{command[0]} … ended with {code}")
    wall, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used, memory.peak


def converted(corpus: Path, kind: str, folder: Path) -> Path:
    path = folder / f"corpus.{kind}"
    if kind == "parquet":
        return corpus
    frame = pl.scan_parquet(corpus)
    if kind == "jsonl":
        frame.sink_ndjson(path)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(corpus)
        with pa.ipc.new_stream(str(path), file.schema_arrow) as writer:
            for batch in file.iter_batches():
                writer.write_batch(batch)
    return path


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("corpus", type=Path)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--formats", default="parquet,jsonl,arrow")
    options.add_argument("--names", action="store_true")
    options.add_argument(
        "--without-script", action="store_true", help="for corpora that do not fit into memory"
    )
    options.add_argument("-j", "--jobs", default="2")
    asked = options.parse_args()
    rows = pl.scan_parquet(asked.corpus).select(pl.len()).collect().item()
    with tempfile.TemporaryDirectory(dir=asked.corpus.parent) as name:
        folder = Path(name)
        for kind in asked.formats.split(","):
            source = converted(asked.corpus, kind, folder)
            target = folder / f"out.{kind}"
            masking = "--mask-names" if asked.names else "--no-mask-names"
            ours = [sys.executable, "-m", "vlcli", "filter", str(source), "--preset", "wukong", masking, "-q"]
            ours += ["-o", str(target), "--force", "-j", asked.jobs]
            script = [sys.executable, "-c", SCRIPT, str(source), str(folder / f"script.{kind}")]
            script.append("names" if asked.names else "")
            commands = {"floor": [sys.executable, "-c", FLOOR, str(source)], "script": script, "vlcli": ours}
            if asked.without_script:
                del commands["script"]
            best: dict[str, tuple[float, float, int]] = {}
            for _ in range(asked.runs):
                for who, command in commands.items():
                    found = run(command)
                    best[who] = min(best.get(who, found), found)
            for who, (wall, used, peak) in best.items():
                ratio = f"{best['script'][0] / wall:5.2f} × the script" if "script" in best else ""
                print(
                    f"{kind:8} {who:7} {rows / wall:10,.0f} rows/s {wall:7.1f} s wall {used:7.1f} s processors "
                    f"{peak / 2**20:7,.0f} MiB  {ratio}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

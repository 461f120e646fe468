"""The scripts for clusters, with an sbatch that runs its tasks here, one after the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "curation"))
from filter_cases import corpus

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "slurm"
SBATCH = r"""#!/usr/bin/env bash
set -euo pipefail
for option in "$@"; do
  case $option in
    --array=*) last=${option##*-} ;;
    --dependency=afterok:*) grep -qx "${option##*:}" jobs ;;
  esac
done
command=${*: -1}
printf '%s\0' "$command" >> tasks
for i in $(seq "$last" -1 0); do SLURM_ARRAY_TASK_ID=$i bash -c "$command" < /dev/null >&2; done
echo "$RANDOM" | tee -a jobs
"""


@pytest.fixture
def run(tmp_path, programs):
    """Runs a command line in the test's folder, where sbatch is the one above."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(*line: str, parts: str = "1") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PARTS": parts,
            "SLURM_ARRAY_TASK_ID": "0",
        }
        return subprocess.run(
            line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("parts", ["1", "3"])
def test_an_array_writes_what_one_command_writes(tmp_path, run, parts):
    corpus(tmp_path, rows=300)
    (tmp_path / "a" / "c.parquet").hardlink_to(tmp_path / "c.parquet")
    rules = ["--preset", "wukong", "--no-mask-names", "-q"]
    told = run("bash", str(SLURM / "filter-array.sh"), "a", "kept", *rules, parts=parts)
    assert told.returncode == 0, told.stderr
    assert "then: vlcli shard kept" in told.stderr
    assert told.stdout == (tmp_path / "jobs").read_text().splitlines(keepends=True)[-1]
    assert run("vlcli", "filter", "a", *rules, "-o", "alone/").returncode == 0
    kept, alone = (
        {p.name: p.read_bytes() for p in (tmp_path / d).glob("*.jsonl")} for d in ("kept", "alone")
    )
    assert kept == alone
    assert sum(data.count(b"\n") for data in kept.values()) > 20


def test_the_shards_of_an_array_are_those_of_one_command(tmp_path, run):
    pictures = ROOT / "tests" / "cases" / "corpus" / "img"
    (tmp_path / "raw").mkdir()
    names = sorted(file.name for file in pictures.iterdir())
    for n in range(5):  # a file is a unit
        rows = [
            {"image": str(pictures / names[i % len(names)]), "text": f"第{i}只", "width": 100 + 60 * (i % 3)}
            for i in range(8 * n, 8 * n + 8)
        ]
        lines = "".join(json.dumps(row | {"height": row["width"]}) + "\n" for row in rows)
        (tmp_path / "raw" / f"{n}.jsonl").write_text(lines)
    line = ["bash", str(SLURM / "shard-array.sh"), "raw", "kept", "shards", "-q", "--min-side", "150", "--"]
    told = run(*line, "--per-shard", "4", "-q", parts="2")
    assert told.returncode == 0, told.stderr
    assert "then: vlcli check shards" in told.stderr
    assert run("vlcli", "filter", "raw", "--min-side", "150", "-o", "alone/").returncode == 0
    assert run("vlcli", "shard", "alone", "--per-shard", "4", "-o", "one").returncode == 0
    shards, one = ({p.name: p.read_bytes() for p in (tmp_path / d).glob("*.*")} for d in ("shards", "one"))
    assert shards == one
    assert sum(json.loads(shards["sizes.json"]).values()) == 26
    shutil.rmtree(tmp_path / "shards")
    with (tmp_path / "kept" / "00004.jsonl").open("a") as file:
        file.write('{"id": "more", "image": "no.png", "text": "no"}\n')
    task = ["bash", "-c", (tmp_path / "tasks").read_text().split("\0")[-2]]
    assert "27 rows in all, --expect 26" in run(*task).stderr
    (tmp_path / "kept" / "_vlcli" / "report.json").unlink()  # as while a part of filter is missing
    assert run(*task).returncode == 1
    assert not list((tmp_path / "shards").glob("*.*"))

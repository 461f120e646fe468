"""The scripts for clusters, with an sbatch that runs its tasks here, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "curation"))
from filter_cases import corpus

ROOT = Path(__file__).parents[2]
SBATCH = """#!/usr/bin/env bash
set -euo pipefail
for option in "$@"; do
  case $option in
    --array=*) last=${option##*-} ;;
    --dependency=afterok:*) grep -qx "${option##*:}" jobs ;;
  esac
done
command=${*: -1}
for i in $(seq "$last" -1 0); do SLURM_ARRAY_TASK_ID=$i bash -c "$command" < /dev/null >&2; done
echo "$RANDOM" | tee -a jobs
"""


@pytest.mark.parametrize("parts", ["1", "3"])
def test_an_array_writes_what_one_command_writes(tmp_path, parts):
    corpus(tmp_path, rows=300)
    (tmp_path / "a" / "c.parquet").hardlink_to(tmp_path / "c.parquet")
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PARTS": parts}
    script = ROOT / "examples" / "slurm" / "filter-array.sh"
    rules = ["--preset", "wukong", "--no-mask-names", "-q"]
    told = subprocess.run(
        ["bash", str(script), "a", "kept", *rules],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "then: vlcli shard kept" in told.stdout
    line = ["vlcli", "filter", "a", *rules, "-o", "alone/"]
    subprocess.run(line, cwd=tmp_path, env=environment, check=True)
    kept, alone = (
        {p.name: p.read_bytes() for p in (tmp_path / d).glob("*.jsonl")} for d in ("kept", "alone")
    )
    assert kept == alone
    assert sum(data.count(b"\n") for data in kept.values()) > 20

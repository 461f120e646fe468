"""A run into a directory that is killed at any moment is finished by the same command, to the same tree."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
RULES = ["--max-text-freq", "3", "--min-side", "150", "-q", "-j", "1"]
UNITS = 24


def line(output: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "vlcli", "filter", "raw.parquet", *RULES, "-o", output, *more]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def promised(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if not name.startswith("_vlcli")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    rows = UNITS * 400
    frame = pl.DataFrame(
        {
            "image": [f"https://e.example/{i % 5000}.jpg" for i in range(rows)],
            "text": [f"第{i * 7919 % 4001}只猫" for i in range(rows)],
            "width": [100 + i % 400 for i in range(rows)],
            "height": [300] * rows,
        }
    )
    frame.write_parquet(folder / "raw.parquet", row_group_size=400)
    subprocess.run(line("whole/", "--rejects", "whole.rejects"), cwd=folder, env=ENVIRONMENT, check=True)
    assert len(promised(folder / "whole")) == UNITS
    return folder


@pytest.mark.parametrize(("number", "goals"), [(signal.SIGKILL, (1, 6, 17)), (signal.SIGTERM, (5,))])
def test_killed_and_finished(corpus, number, goals):
    name = f"kept-{number}"
    kept, marks = corpus / name, corpus / name / "_vlcli" / "units"
    for goal in goals:  # units that stand when the signal comes
        with subprocess.Popen(
            line(f"{name}/", "--rejects", f"{name}.rejects"), cwd=corpus, env=ENVIRONMENT
        ) as run:
            until = time.monotonic() + 60
            while run.poll() is None and len(list(marks.glob("*.json"))) < goal and time.monotonic() < until:
                time.sleep(0.001)
            run.send_signal(number)
            assert run.wait() in (-signal.SIGKILL, 143, 0)
        whole = promised(corpus / "whole")
        assert all(data == whole[n] for n, data in promised(kept).items() if not n.startswith("."))
    subprocess.run(line(f"{name}/", "--rejects", f"{name}.rejects"), cwd=corpus, env=ENVIRONMENT, check=True)
    assert promised(kept) == promised(corpus / "whole")
    assert tree(corpus / f"{name}.rejects") == tree(corpus / "whole.rejects")


def test_a_full_disk_names_the_file_and_leaves_no_half_of_it(corpus):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    told = subprocess.run(
        line("full/"), cwd=corpus, env=ENVIRONMENT, preexec_fn=small_files, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "File too large" in told.stderr
    assert "full/" in told.stderr
    assert promised(corpus / "full") == {}

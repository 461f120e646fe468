"""Command lines and what they say: `tests/cases/SUBCOMMAND/NAME/{cmd,expout,experr,rc}`.

`cmd` is run by `bash -euo pipefail` in a fresh folder that holds the case's other files and `corpus/` (four rows as
JSONL, Parquet, Arrow, gzip and zstd, and their pictures). Its stdout must equal `expout` and its stderr `experr` (no
such file: nothing may be said), its exit code `rc` (0). A failing step inside is written `vlcli … || echo $?`.
VLCLI_CASES=rewrite stores what is found instead; read the diff before you commit it.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import pytest
import zstandard

ROOT = Path(__file__).parents[1]
CASES = Path(__file__).parent / "cases"
EXPECTED = ("cmd", "expout", "experr", "rc")
# What differs between two runs that are alike, and what stands for it.
VOLATILE = ((re.compile(r"^vlcli \d+\.\d+\.\d+$", re.M), "vlcli VERSION"),)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tests/cases/corpus` and the same rows in the other formats."""
    folder = tmp_path_factory.mktemp("cases") / "corpus"
    shutil.copytree(CASES / "corpus", folder)
    lines = (folder / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(lines))
    table = pyarrow.json.read_json(folder / "rows.jsonl")
    with pa.ipc.new_stream(folder / "rows.arrow", table.schema) as stream:
        stream.write_table(table)
    pictures = [{"bytes": (folder / p).read_bytes(), "path": None} for p in table["image"].to_pylist()]
    place = table.schema.get_field_index("image")
    pq.write_table(table.set_column(place, "image", pa.array(pictures)), folder / "rows.parquet")
    return folder


def plain(said: bytes, folder: Path) -> str:
    text = said.decode("utf-8", "backslashreplace").replace(str(folder), "@")
    for pattern, shown in VOLATILE:
        text = pattern.sub(shown, text)
    return text


def expected(case: Path, name: str, default: str) -> str:
    file = case / name
    return file.read_text(encoding="utf-8") if file.exists() else default


@pytest.mark.parametrize(
    "case", sorted(f.parent for f in CASES.glob("*/*/cmd")), ids=lambda c: f"{c.parent.name}/{c.name}"
)
def test_case(case: Path, corpus: Path, programs: Path, tmp_path: Path) -> None:
    folder = Path(os.path.realpath(tmp_path)) / "work"
    shutil.copytree(case, folder, ignore=shutil.ignore_patterns(*EXPECTED))
    shutil.copytree(corpus, folder / "corpus")
    environment = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
        "RAW": str(ROOT / "examples/emoji/raw.parquet"),
    }
    command = ["bash", "-euo", "pipefail", str(case / "cmd")]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=300
    )
    found = {
        "expout": plain(done.stdout, folder),
        "experr": plain(done.stderr, folder),
        "rc": f"{done.returncode}\n",
    }
    defaults = {"expout": "", "experr": "", "rc": "0\n"}
    if os.environ.get("VLCLI_CASES") == "rewrite":
        for name, text in found.items():
            (case / name).unlink(missing_ok=True)
            if text != defaults[name]:
                (case / name).write_text(text, encoding="utf-8")
    assert found == {name: expected(case, name, default) for name, default in defaults.items()}

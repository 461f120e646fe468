"""Equal rows and options give equal bytes, wherever and however `shard` runs; `_vlcli` alone may differ."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlcli import __version__
from vlcli.cli import app
from vlcli.records import lineage

ROOT = Path(__file__).parents[2]
RULES = {"layout": 1, "per-shard": 4, "encode": "png", "resize": 16}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven pictures, two of them broken, beside the JSONL and inside a Parquet file that names them."""
    folder = tmp_path_factory.mktemp("bytes")
    pixels = []
    for i in range(11):
        buffer = io.BytesIO()
        Image.new("RGB", (20 + i, 24), (i * 20, 9, 255 - i * 20)).save(buffer, ["PNG", "JPEG"][i % 2])
        pixels.append(b"no image" if i in (2, 9) else buffer.getvalue())
        (folder / f"{i}.img").write_bytes(pixels[i])
    lines = [{"id": f"{i:02d}", "image": f"{i}.img", "text": f"第{i}张", "n": i} for i in range(11)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    frame = pl.DataFrame(lines).with_columns(image=pl.Series([{"bytes": p} for p in pixels]))
    frame.write_parquet(folder / "rows.parquet")
    return folder


def tree(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


def run(
    rows: Path, output: Path, *options: str, cwd: Path = ROOT, umask: int = 0o22, **environment: str
) -> None:
    command = [sys.executable, "-m", "vlcli", "shard", str(rows), "-o", str(output), "--per-shard", "4"]
    command += ["--encode", "png", "--resize", "16", "--max-bad", "2", *options]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, umask=umask, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_same_bytes_on_every_run(rows: Path, tmp_path: Path) -> None:
    run(rows / "rows.jsonl", tmp_path / "plain", TZ="UTC", LC_ALL="C.UTF-8", PYTHONHASHSEED="1")
    (tmp_path / "tmp").mkdir()
    run(
        Path("rows.jsonl"), tmp_path / "elsewhere", "-j", "3", "-q", cwd=rows, umask=0o77,
        TZ="Asia/Shanghai", LC_ALL="C", PYTHONHASHSEED="2", TMPDIR=str(tmp_path / "tmp"), HOME=str(tmp_path),
    )  # fmt: skip
    plain = tree(tmp_path / "plain")
    assert len(plain) == 3 * 3 + 1
    assert tree(tmp_path / "elsewhere") == plain
    assert list((tmp_path / "tmp").iterdir()) == []
    runs = [
        json.loads((tmp_path / name / "_vlcli" / "run.json").read_bytes()) for name in ("plain", "elsewhere")
    ]
    assert runs[0] != runs[1], "what does differ, times and command line, is kept where it harms nobody"


def in_process(*arguments: object) -> None:
    app([str(a) for a in arguments], prog_name="vlcli", standalone_mode=False)


def chain(tar: Path) -> list[dict]:
    return list(lineage.from_metadata(pq.read_schema(tar.with_suffix(".parquet")).metadata))


def test_lineage_names_versions_rules_and_input(rows: Path, tmp_path: Path) -> None:
    """… and never a path or a time: the bytes would tell where and when. It grows from what filter recorded."""
    options = ["--per-shard", 4, "--encode", "png", "--resize", 16, "--max-bad", 2, "-q"]
    in_process("shard", rows / "rows.jsonl", "-o", tmp_path / "plain", *options)
    (step,) = chain(tmp_path / "plain" / "00000.tar")
    assert {**step, "input": ""} == {
        "id": "shard", "name": "shard", "version": __version__, "rules": RULES, "input": "",
    }  # fmt: skip
    inputs = [chain(tmp_path / "plain" / f"0000{i}.tar")[0]["input"] for i in range(3)]
    assert [len(i) for i in inputs] == [64] * 3
    assert len(set(inputs)) == 3

    in_process("filter", rows / "rows.parquet", "--min-words", 1, "-o", tmp_path / "kept.parquet", "-q")
    in_process("shard", tmp_path / "kept.parquet", "-o", tmp_path / "two", *options)
    steps = chain(tmp_path / "two" / "00001.tar")
    assert [s["name"] for s in steps] == ["filter", "shard"]
    assert str(tmp_path).encode() not in orjson.dumps(steps)
    tars = [{k: v for k, v in tree(tmp_path / d).items() if k.endswith(".tar")} for d in ("plain", "two")]
    assert tars[0] == tars[1], "the samples are the same; the sidecar alone tells their history"


def test_inputs_of_several_histories(rows: Path, tmp_path: Path) -> None:
    """Every step that led to any row of a shard, each once."""
    for name, option, bound in (("a", "--min-words", 1), ("b", "--max-words", 31)):
        arguments = [option, bound, "--head", 2, "-o", tmp_path / f"{name}.parquet", "-q"]
        in_process("filter", rows / "rows.parquet", *arguments)
    in_process("shard", tmp_path / "a.parquet", tmp_path / "b.parquet", "-o", tmp_path / "out", "-q")
    steps = chain(tmp_path / "out" / "00000.tar")
    assert [s["name"] for s in steps] == ["filter", "filter", "shard"]
    assert steps[0]["rules"] != steps[1]["rules"]
    assert [len({s["id"] for s in steps}), steps[2]["id"]] == [3, "shard"]

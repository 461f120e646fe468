"""Checksums that prove that nothing was lost: from filter through a pipe to shards, and of files in any form."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_cases import make_rows, picture, shard, vlcli

from vlcli.shards.check import check_directory, check_rows, check_tar
from vlcli.shards.contents import Contents, of_sidecar
from vlcli.shards.reader import read_sidecar

ROOT = Path(__file__).parents[2]


def literal(rows: list[list]) -> str:
    digests = [hashlib.sha256(orjson.dumps([*row, 0])).digest()[:16] for row in rows]
    return f"{sum(int.from_bytes(d) for d in digests) % (1 << 128):032x}"


def numbers(contents: Contents | None) -> tuple[int, str, int, str]:
    assert contents is not None
    return contents.rows, contents.of_rows.hex(), contents.pairs, contents.of_pairs.hex()


def bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A script in which `vlcli` is this one."""
    function = f'vlcli() {{ {sys.executable} -m vlcli "$@"; }}\n'
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", function + script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_of_what_they_are(tmp_path: Path) -> None:
    shard(make_rows(tmp_path, 5), tmp_path / "out", per_shard=2)
    rows = [row for n in range(3) for row in read_sidecar(tmp_path / "out" / f"0000{n}.parquet").to_pylist()]
    assert numbers(check_directory(tmp_path / "out", checksum=True).contents) == (
        5, literal([[r["id"], r["texts"]] for r in rows]),
        5, literal([[r["image_id"], r["texts"]] for r in rows]),
    )  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """JSONL of twenty rows, of which two will fail; with blank, single and several texts."""

    def change(i: int, row: dict, file: Path) -> dict:
        if i == 3:
            file.unlink()
        if i == 11:
            file.write_bytes(b"<html></html>")
        row |= {"width": 300, "height": 300}
        return {**row, "text": "只有一句话"} if i % 5 == 0 else row

    return make_rows(tmp_path, 20, change=change)


def test_filter_and_shard_through_a_pipe(tmp_path: Path, rows: Path) -> None:
    done = bash(
        "vlcli filter rows.jsonl --min-words 1 --report filter.json | tee kept.jsonl |"
        " vlcli shard --per-shard 6 --max-bad 2 -o out --report shard.json\n"
        "vlcli check --checksum --json kept.jsonl out > check.json",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    filtered, sharded, checked = (
        json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("filter", "shard", "check")
    )
    of_file, of_shards = (path["checksum"] for path in checked["paths"])
    assert sharded["rows"] == {"in": 20, "kept": 18, "dropped": 0, "bad": 2}
    assert sharded["statuses"] == {"failed_to_download": 1, "failed_to_resize": 1, "success": 18}
    # No row was lost in the pipe; none that is a file is missing in the shards; two pairs have no image.
    assert sharded["checksum"]["came"]["value"] == filtered["checksum"]["value"] == of_file["pairs"]["value"]
    assert of_file["rows"] == of_shards["rows"] == sharded["checksum"]["rows"]
    assert of_shards["pairs"] == sharded["checksum"]["pairs"]
    assert (of_shards["rows"]["count"], of_shards["pairs"]["count"]) == (20, 18)
    # A row that vanished on the way is seen.
    done = bash(
        "vlcli filter rows.jsonl --report f.json | sed 7d | vlcli shard --max-bad 2 -o less --report less.json",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    less = json.loads((tmp_path / "less.json").read_bytes())
    assert less["checksum"]["came"]["value"] != filtered["checksum"]["value"]
    assert less["checksum"]["rows"]["value"] != of_file["rows"]["value"]
    # The second run of a resumed one reports the same.
    vlcli(
        *(
            "shard",
            str(tmp_path / "kept.jsonl"),
            "--per-shard",
            "6",
            "--max-bad",
            "2",
            "-o",
            str(tmp_path / "out"),
        ),
        *("--resume", "-q", "--report", str(tmp_path / "again.json")),
    )
    again = json.loads((tmp_path / "again.json").read_bytes())
    assert again | {"inputs": ["-"]} == sharded


def test_images_in_parquet_keep_one_number_from_filter_to_the_tars(tmp_path: Path) -> None:
    """Their image_id is the sha256 of the bytes from the start, and stays when they are resized."""
    frame = pl.DataFrame(
        {
            "image": [{"bytes": picture(i, size=(40, 30)), "path": None} for i in range(9)],
            "text": [[f"第{i}张", f"图{i}"] for i in range(9)],
        }
    )
    frame.write_parquet(tmp_path / "raw.parquet")
    done = bash(
        "vlcli filter raw.parquet --report filter.json | vlcli shard --per-shard 4 --resize 10 --encode jpg -o out\n"
        "vlcli check --checksum raw.parquet out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    number = json.loads((tmp_path / "filter.json").read_bytes())["checksum"]["value"]
    lines = [line for line in done.stdout.splitlines() if " rows " in line]
    assert lines[0].removeprefix("raw.parquet") == lines[1].removeprefix("out")
    assert lines[0].endswith(f", 9 pairs {number}")


def test_order_form_and_parting_do_not_matter(tmp_path: Path, rows: Path) -> None:
    vlcli("filter", str(rows), "-o", str(tmp_path / "kept.jsonl"), "-q")
    right = numbers(check_rows(str(tmp_path / "kept.jsonl")).contents)
    lines = (tmp_path / "kept.jsonl").read_bytes().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    (tmp_path / "shuffled.jsonl").write_bytes(b"".join(lines))
    vlcli("filter", str(tmp_path / "shuffled.jsonl"), "-o", str(tmp_path / "kept.parquet"), "-q")
    vlcli("filter", str(tmp_path / "kept.jsonl"), "-o", str(tmp_path / "kept.arrow"), "-q")
    for name in ("shuffled.jsonl", "kept.parquet", "kept.arrow"):
        assert numbers(check_rows(str(tmp_path / name)).contents) == right, name
    for per_shard in (1, 7, 100):
        out = tmp_path / f"{per_shard}"
        shard(tmp_path / "shuffled.jsonl", out, per_shard=per_shard, max_bad="2")
        whole = numbers(check_directory(out, checksum=True, jobs=3).contents)
        assert whole[:3] == (right[0], right[1], 18)
        parts = Contents()
        for tar in out.glob("*.tar"):
            one = check_tar(tar, checksum=True).contents
            assert one is not None
            parts.merge(one)
        assert numbers(parts) == whole
    (tmp_path / "twice.jsonl").write_bytes(b"".join([*lines, lines[0], lines[0]]))
    assert numbers(check_rows(str(tmp_path / "twice.jsonl")).contents) != right


@pytest.mark.parametrize("change", ["text", "id", "order of texts"])
def test_whatever_is_another_row_is_another_number(tmp_path: Path, rows: Path, change: str) -> None:
    vlcli("filter", str(rows), "-o", str(tmp_path / "kept.jsonl"), "-q")
    lines = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_bytes().splitlines()]
    if change == "text":
        lines[7]["text"][1] += "。"
    elif change == "id":
        lines[7]["id"] = lines[8]["id"]
    else:
        lines[7]["text"].reverse()
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    one, other = (check_rows(str(tmp_path / name)).contents for name in ("kept.jsonl", "other.jsonl"))
    assert one is not None
    assert other is not None
    assert one.of_rows.hex() != other.of_rows.hex()


def test_shards_of_others_have_none(tmp_path: Path) -> None:
    shard(make_rows(tmp_path, 4), tmp_path / "out", per_shard=2)
    pq.write_table(pa.table({"key": ["000000", "000001"]}), tmp_path / "out" / "00000.parquet")
    assert of_sidecar(tmp_path / "out" / "00000.parquet") is None
    verdict = check_directory(tmp_path / "out", checksum=True)
    assert verdict.contents is not None
    assert verdict.contents.rows == 2
    (note,) = [note for note in verdict.notes if "checksum" in note]
    assert "00000.tar: no sidecar of 'vlcli shard'" in note

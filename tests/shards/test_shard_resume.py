"""A directory that a stopped run left: continued by the same command, refused by everyone else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shard_cases import make_rows, shard, tree, vlcli

from vlcli.errors import InputError, UsageError
from vlcli.shards.check import check_directory
from vlcli.shards.pairs import load_pairs

KILLS = 8


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Two shards of five stand, as a kill in the third leaves them."""
    shard(make_rows(tmp_path, 10), tmp_path / "whole", per_shard=2)
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "whole", out)
    for name in ["sizes.json", "_vlcli/manifest.jsonl"]:
        (out / name).unlink()
    for i in (2, 3, 4):
        for end in (".tar", ".parquet", "_stats.json"):
            (out / f"0000{i}{end}").unlink()
    journal = (out / "_vlcli" / "committed.jsonl").read_bytes().splitlines(keepends=True)
    (out / "_vlcli" / "committed.jsonl").write_bytes(b"".join(journal[:2]) + journal[2][:50])
    (out / ".00002.tar.0badcafe.tmp").write_bytes(b"x" * 1000)
    return out


def test_killed_again_and_again(tmp_path: Path) -> None:
    """SIGKILL at random moments; the last run's tree is that of a run that nobody disturbed."""

    def broken(i: int, row: dict, file: Path) -> dict:
        if i % 70 == 5:
            file.write_bytes(b"no image")
        return row

    rows = make_rows(tmp_path, 240, change=broken)
    shard(rows, tmp_path / "whole", per_shard=12, max_bad="4")
    places = [tmp_path / name for name in ("out", "whole", "kept")]
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("killed_shard.py"),
            rows,
            *places[:2],
            str(KILLS),
            places[2],
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    stood = [int(n) for n in done.stdout.split()]
    assert len(stood) == KILLS
    assert 0 < max(stood) < 20
    # What a kill left is recognised: `check` says 3 and why, training does not begin with it.
    assert "unfinished" in {f.code for f in check_directory(tmp_path / "kept", deep=True).findings}
    assert vlcli("check", "-q", str(tmp_path / "kept")) == 3
    with pytest.raises(InputError, match=r"kept: no sizes.json: .*the same command again finishes it"):
        load_pairs([str(tmp_path / "kept")])


def test_the_same_command_continues(partial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {p.name: p.stat().st_mtime_ns for p in partial.glob("*.tar")}
    rows = str(partial.parent / "rows.jsonl")
    vlcli("shard", rows, "-o", str(partial), "--per-shard", "2", "--dry-run")
    assert "2 shards stand already, and would be skipped" in capsys.readouterr().out
    vlcli("shard", rows, "-o", str(partial), "--per-shard", "2")
    assert "2 shards stand already, and are compared and kept" in capsys.readouterr().err
    assert tree(partial) == tree(partial.parent / "whole")
    assert {name: (partial / name).stat().st_mtime_ns for name in times} == times
    assert check_directory(partial, deep=True).findings == []
    # Complete now: as any output that exists. --resume finds nothing to do.
    with pytest.raises(UsageError, match="not empty"):
        vlcli("shard", rows, "-o", str(partial), "--per-shard", "2")
    assert vlcli("shard", rows, "-o", str(partial), "--per-shard", "2", "--resume") == 0
    assert "(5 shards stood already)" in capsys.readouterr().err


def test_rows_from_a_pipe_are_compared_as_they_come(partial: Path) -> None:
    rows = (partial.parent / "rows.jsonl").read_bytes()
    command = [
        sys.executable,
        "-m",
        "vlcli",
        "shard",
        "--image-root",
        str(partial.parent),
        "--per-shard",
        "2",
    ]
    command += ["-o", str(partial)]
    before = tree(partial)
    other = rows.replace("第3张图".encode(), "第三张图".encode())
    refused = subprocess.run(command, input=other, capture_output=True)
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"shard 00001: its rows changed" in refused.stderr.splitlines()[-1]
    assert {n: d for n, d in tree(partial).items() if not n.endswith(".tmp")} == {
        n: d for n, d in before.items() if not n.endswith(".tmp")
    }
    done = subprocess.run(command, input=rows, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert tree(partial) == tree(partial.parent / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_shard": 3}, "another --per-shard: 2 then, 3 now"),
        ({"per_shard": 2, "encode": "jpg"}, "another --encode: keep then, jpg now"),
        ({"per_shard": 2, "resize": 4}, "another --resize: None then, 4 now"),
    ],
)
def test_other_options_are_named(partial: Path, options: dict, message: str) -> None:
    before = tree(partial)
    with pytest.raises(UsageError, match=message):
        shard(partial.parent / "rows.jsonl", partial, **options)
    assert tree(partial) == before


def test_other_input_is_named(partial: Path) -> None:
    for rows, message in (
        (make_rows(partial.parent, 3, name="short.jsonl"), "shard 00001: 2 rows then, 1 now"),
        (make_rows(partial.parent, 2, name="shorter.jsonl"), "shard 00001 stands there too"),
    ):
        with pytest.raises(UsageError, match=message):
            shard(rows, partial, per_shard=2)
    assert not (partial / "sizes.json").exists()
    # A shard that stands and that the journal, cut by the kill, does not know.
    shutil.copy(partial.parent / "whole" / "00004.tar", partial / "00004.tar")
    with pytest.raises(UsageError, match="shard 00004 stands there too"):
        shard(make_rows(partial.parent, 6, name="six.jsonl"), partial, per_shard=2)


def test_another_version_began_it(partial: Path) -> None:
    run = partial / "_vlcli" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_bytes()) | {"version": "0.0.1"}))
    with pytest.raises(UsageError, match=r"vlcli 0\.0\.1 began it"):
        shard(partial.parent / "rows.jsonl", partial, per_shard=2)


def test_force_starts_anew(partial: Path) -> None:
    assert shard(partial.parent / "rows.jsonl", partial, per_shard=5, force=True).skipped == 0
    assert sorted(tree(partial))[:3] == ["00000.parquet", "00000.tar", "00000_stats.json"]
    assert check_directory(partial, deep=True).findings == []


def test_killed_before_anything_was_written(tmp_path: Path) -> None:
    (tmp_path / "out" / "_vlcli").mkdir(parents=True)
    (tmp_path / "out" / "_vlcli" / ".run.json.00000000.tmp").touch()
    assert shard(make_rows(tmp_path, 2), tmp_path / "out").shards == 1
    assert sorted(p.name for p in (tmp_path / "out" / "_vlcli").iterdir()) == [
        "committed.jsonl", "lock", "manifest.jsonl", "run.json",
    ]  # fmt: skip

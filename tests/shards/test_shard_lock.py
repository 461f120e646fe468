"""Two runs that write into one directory: the first has it, the other is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shard_cases import make_rows, shard, tree, vlcli

from vlcli.errors import UsageError
from vlcli.records.lock import DirectoryLock
from vlcli.shards.check import check_directory


def arguments(folder: Path, *more: str) -> list[str]:
    options = ["--image-root", str(folder), "--per-shard", "2", "-o", str(folder / "out"), "-q", "-j", "1"]
    return ["shard", *options, *more]


@pytest.fixture
def first(tmp_path: Path):
    """A run that has written some shards and waits for the rest of its rows: (process, the rest)."""
    lines = make_rows(tmp_path, 40).read_bytes().splitlines(keepends=True)
    shard(tmp_path / "rows.jsonl", tmp_path / "whole", per_shard=2)
    command = [sys.executable, "-m", "vlcli", *arguments(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    # The reader takes a pipe in pieces; padding brings the first rows through.
    process.stdin.write(b"".join(lines[:30]) + b"\n" * (17 << 20))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*_stats.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    yield process, b"".join(lines[30:])
    process.kill()
    process.communicate()


def test_the_second_is_refused_and_harms_nothing(tmp_path: Path, first) -> None:
    process, rest = first
    for more in ([], ["--force"], ["--resume"], ["--dry-run"]):
        with pytest.raises(UsageError) as refused:
            vlcli(*arguments(tmp_path, *more), str(tmp_path / "rows.jsonl"))
        said = f"{tmp_path / 'out'}: another run writes into it (process {process.pid} on "
        assert str(refused.value).startswith(said)
    assert process.communicate(rest)[1] == b""
    assert process.returncode == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert check_directory(tmp_path / "out", deep=True).findings == []
    assert shard(tmp_path / "rows.jsonl", tmp_path / "out", per_shard=2, resume=True).skipped == 20


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_run_leaves_locks_nobody_out(tmp_path: Path, first, signum: signal.Signals) -> None:
    process, _ = first
    process.send_signal(signum)
    process.wait()
    assert (tmp_path / "out" / "_vlcli" / "lock").exists()
    shard(tmp_path / "rows.jsonl", tmp_path / "out", per_shard=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_begun_at_the_same_moment(tmp_path: Path) -> None:
    """One writes everything, the other nothing, whichever came first; eight times."""
    rows = make_rows(tmp_path, 12)
    shard(rows, tmp_path / "whole", per_shard=3)
    program = [sys.executable, Path(__file__).with_name("two_writers.py")]
    done = subprocess.run(
        [*program, rows, tmp_path / "out", tmp_path / "whole", "8"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *codes, locked = done.stdout.splitlines()
    assert codes == ["0 2"] * 8, done.stderr
    assert int(locked.split()[1]) > 0, done.stderr


def test_a_claim_that_is_out_of_date(tmp_path: Path) -> None:
    """Between a run's look at the directory and its first row, another one has come and gone."""
    from vlcli.shards.output import Options, OutputDirectory

    rows = make_rows(tmp_path, 4)
    claim = OutputDirectory(tmp_path / "out", Options(per_shard=2))
    shard(rows, tmp_path / "out", per_shard=2)
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        claim.begin()
    claim.lock.release()
    claim = OutputDirectory(tmp_path / "out", Options(per_shard=2), resume=True)
    claim.lock.release()
    shard(make_rows(tmp_path, 6, name="b.jsonl"), tmp_path / "out", per_shard=2, force=True)
    with pytest.raises(UsageError, match="another run has written into it meanwhile"):
        claim.begin()
    assert len(tree(tmp_path / "out")) > len(before)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(fd: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    lock = DirectoryLock(tmp_path / "lock", "here")
    lock.acquire()
    assert not lock.held
    assert shard(make_rows(tmp_path, 4), tmp_path / "out", per_shard=2).shards == 2

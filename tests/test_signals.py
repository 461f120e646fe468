"""Pipes and signals with real processes: whatever ends a command, it says one line and leaves nothing half done."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vlcli.shards.check import check_directory

ROOT = Path(__file__).parents[1]
RAW = ROOT / "examples/emoji/raw.parquet"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
# A shell's background jobs ignore SIGINT, and what they start inherits that: the default is put back.
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from vlcli.__main__ import run; run()"
WORDS = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
FILTER = ["filter", *[str(RAW)] * 6, "--map", "text=name", "--preset", "wukong", "--min-side", "1", "-q"]
SHARD = ["shard", str(RAW), "--map", "text=name", "--per-shard", "50", "-q"]


def start(*arguments: object, stdin: Any = subprocess.DEVNULL, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(  # type: ignore[call-overload]
        command, stdin=stdin, stderr=pipe, text=True, **{"env": ENVIRONMENT, "stdout": pipe, **more}
    )


def stopped(process: subprocess.Popen[str], number: int, program: str) -> None:
    """Send the signal; the command ends soon, with its code and one line."""
    process.send_signal(number)
    try:
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    word, code = WORDS[signal.Signals(number)]
    assert process.returncode == code, said
    assert said in (f"{program}: {word}\n", f"vlcli: {word}\n")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_whole(folder: Path) -> None:
    """Nothing temporary; a shard that stands does so completely, and nothing calls the set whole."""
    names = files(folder)
    assert not [name for name in names if name.endswith((".tmp", ".spool"))]
    tars = [name for name in names if name.endswith(".tar")]
    committed = folder / "shards/_vlcli/committed.jsonl"
    recorded = [json.loads(line) for line in committed.read_text().splitlines()] if committed.exists() else []
    for shard in recorded:
        assert (folder / "shards" / shard["tar"]["name"]).stat().st_size == shard["tar"]["bytes"]
    assert len(tars) - len(recorded) in (0, 1)  # between the last rename and the journal's line
    assert "shards/sizes.json" not in names


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment(tmp_path: Path, number: int) -> None:
    # from the first imports on into the writing
    moments = [0.0, 0.06, 0.14, 0.24, 0.36, 0.54] if number == signal.SIGTERM else [0.03, 0.2, 0.45, 0.75]
    for moment in moments:
        for command, more in (
            (FILTER, ["-o", "out.jsonl", "--rejects", "no.jsonl", "--report", "report.json"]),
            (SHARD, ["-o", "shards"]),
        ):
            folder = tmp_path / f"{command[0]}-{moment}"
            folder.mkdir()
            process = start(*command, *more, cwd=folder, env=ENVIRONMENT | {"TMPDIR": str(folder)})
            wait_until_it_listens(process)
            time.sleep(moment)
            stopped(process, number, f"vlcli {command[0]}")
            assert_whole(folder)
            if command is FILTER:
                assert files(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", ["stdin", "fifo", "fifo without a writer"])
def test_a_signal_while_the_input_is_idle(tmp_path: Path, number: int, source: str) -> None:
    if source == "stdin" and number == signal.SIGINT:
        command = ["shard", "-o", "shards"]
    else:
        command = ["filter", "--max-text-freq", "3", "-o", "out.jsonl"]
    os.mkfifo(tmp_path / "fifo")
    out, into = os.pipe()
    more = {} if source == "stdin" else {"stdin": subprocess.DEVNULL}
    if source == "stdin":
        more = {"stdin": out}
    else:
        command.insert(1, str(tmp_path / "fifo"))
    folder = tmp_path / "work"
    folder.mkdir()
    process = start(*command, cwd=folder, env=ENVIRONMENT | {"TMPDIR": str(folder)}, **more)
    if source == "fifo":
        into = os.open(tmp_path / "fifo", os.O_WRONLY)  # returns when the command has opened it
    if source != "fifo without a writer":
        os.write(into, b'{"id": "1", "text": "a"}\n')
    wait_until_asleep(process)
    stopped(process, number, f"vlcli {command[0]}")
    os.close(into)
    assert files(folder) == []


def wait_until_it_listens(process: subprocess.Popen[str]) -> None:
    """Until our first lines have run: python before them, which a busy machine keeps waiting, dies of SIGTERM."""
    terminated = 1 << (signal.SIGTERM - 1)
    while (
        not int(re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{process.pid}/status").read_text())[0], 16)
        & terminated
    ):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def wait_until_asleep(process: subprocess.Popen[str]) -> None:
    """Until the process has used no processor time for a while: all that it could do is done."""
    ticks, since = -1, time.monotonic()
    while time.monotonic() - since < 0.4:
        used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if (now := int(used[11]) + int(used[12])) != ticks:
            ticks, since = now, time.monotonic()
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("form", ["jsonl", "arrow"])
def test_a_signal_while_the_reader_stands_still(tmp_path: Path, form: str) -> None:
    process = start(
        "filter", RAW, "--to", form, "-q"
    )  # nobody reads its output, which is more than a pipe holds
    wait_until_asleep(process)
    process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    assert process.stdout is not None
    assert process.stderr is not None
    left, said = process.stdout.buffer.read(), process.stderr.read()  # type: ignore[attr-defined]
    assert (code, said) == (143, "vlcli filter: terminated\n")
    done = subprocess.run(
        [sys.executable, "-m", "vlcli", "filter", "-q", "-o", tmp_path / "out"],
        input=left,
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert done.returncode == 3
    assert not (tmp_path / "out").exists()


def test_a_first_stage_that_is_killed(tmp_path: Path) -> None:
    """filter | filter | shard, the first one killed in the middle: what has come is not taken for all."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {
                    "id": str(i),
                    "text": f"{i:04}" * 1000,
                    "image": str(ROOT / "tests/cases/corpus/img/dog.png"),
                }
            )
            + "\n"
            for i in range(5000)  # more than is read at once
        )
    )
    for form in ("jsonl", "arrow"):
        out, into = os.pipe()
        with open(rows, "rb") as file:
            first = start("filter", "-q", "--to", form, stdin=out)
            second = start("filter", "-q", "--to", form, stdin=first.stdout)
            third = start("shard", "-q", "-o", tmp_path / form, "--per-shard", "200", stdin=second.stdout)
            first.stdout.close()  # type: ignore[union-attr]
            second.stdout.close()  # type: ignore[union-attr]
            os.close(out)
            while piece := file.read(1 << 16):
                os.write(into, piece)
            wait_until_asleep(first)  # it waits for more
        first.kill()
        os.close(into)
        assert first.wait(30) == -signal.SIGKILL
        codes = second.wait(30), third.wait(30)
        said = second.stderr.read(), third.stderr.read()  # type: ignore[union-attr]
        assert codes == (3, 3), said
        assert all(line.count("\n") == 1 and "<stdin>" in line for line in said)
        assert not (tmp_path / form / "sizes.json").exists()
        assert not [name for name in files(tmp_path) if name.endswith(".tmp")]
        if (tmp_path / form).exists():
            assert check_directory(tmp_path / form).status == "damaged"


def test_two_signals_are_one(tmp_path: Path) -> None:
    process = start("filter", "-o", tmp_path / "out", stdin=subprocess.PIPE)
    wait_until_asleep(process)
    process.send_signal(signal.SIGINT)
    stopped(process, signal.SIGINT, "vlcli filter")
    assert files(tmp_path) == []


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    out, into = os.pipe()
    command = ["sh", "-c", f"trap '' INT; exec {sys.executable} -m vlcli filter -q"]
    with subprocess.Popen(command, stdin=out, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as process:
        wait_until_asleep(process)
        process.send_signal(signal.SIGINT)
        os.write(into, b'{"id": "1"}\n')
        os.close(into)
        os.close(out)
        assert process.communicate()[0] == '{"id":"1"}\n'
    assert process.returncode == 0


def on_a_terminal(arguments: Sequence[object]) -> tuple[int, bytes]:
    """Exit code and what a terminal is shown on stderr."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vlcli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env=ENVIRONMENT | {"TERM": "xterm"},
    )
    os.close(slave)
    shown = b""
    while select.select([master], [], [], 60)[0]:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # the last one has closed it
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return process.wait(30), shown


def test_progress_is_for_terminals() -> None:
    short = ["filter", str(RAW), "--map", "text=name", "--head", "500"]
    code, shown = on_a_terminal(short)
    assert code == 0
    assert b"filtering" in shown
    assert b"\x1b[" in shown
    assert on_a_terminal([*short, "-q"]) == (0, b"")
    done = subprocess.run([sys.executable, "-m", "vlcli", *short], capture_output=True, env=ENVIRONMENT)
    assert done.returncode == 0
    assert b"\x1b" not in done.stderr + done.stdout
    assert b"\r" not in done.stderr
    assert all(line.startswith(b"vlcli filter: ") for line in done.stderr.splitlines())
    for line in done.stdout.splitlines():
        json.loads(line)


DROPPED = """
import os, signal, time
from vlcli import cli
from vlcli.errors import Terminated

cli._listen()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
except BaseException:
    pass  # as C modules do that import others
try:
    try:
        time.sleep(5)
        print("lost")
    finally:
        began = time.monotonic()
        while time.monotonic() - began < 0.4:  # cleaning up, longer than it takes until the next look
            time.sleep(0.01)
        print("cleaned")
except Terminated:
    print("arrived")
signal.setitimer(signal.ITIMER_REAL, 0)  # as the program does at its end
"""


def test_a_signal_that_was_dropped_comes_again_and_leaves_cleaning_in_peace() -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["cleaned", "arrived"]), done.stderr

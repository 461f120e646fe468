"""Command lines that are wrong: one line on stderr that names the cause, the documented exit code, no traceback,
and nothing under the output's name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vlcli import cli
from vlcli.errors import InputError

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a picture, rows that name it, and a checkpoint that is one by its name only."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 80), "red").save("r.png")
    Path("good.jsonl").write_text(json.dumps({"image": "r.png", "text": "红色"}) + "\n")
    Path("gone.jsonl").write_text(json.dumps({"id": "a", "image": "gone.png", "text": "红色"}) + "\n")
    Path("empty.jsonl").touch()
    Path("rows.csv").write_text("url,caption\na.jpg,hello\n")
    Path("nothing").mkdir()
    Path("checkpoint").mkdir()
    Path("checkpoint/config.json").write_text('{"kind": "captioner"}')
    return tmp_path


@pytest.fixture
def run(programs_of_models: Path, folder: Path) -> Run:
    """A command line there, in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(programs_of_models / "vlcli"), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
        )

    return run


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("filt x", 2, "vlcli: No such command 'filt'; did you mean 'filter'?; see 'vlcli --help'"),
        ("check", 2, "vlcli check: Missing argument 'PATH...'; see 'vlcli check --help'"),
        ("recipes nosuch", 2, "vlcli recipes: Invalid value for 'action': 'nosuch' is not one of"),
        ("filter missing.jsonl", 2, "vlcli filter: missing.jsonl: no such file"),
        ("filter good.jsonl --preset nosuch", 2, "vlcli filter: --preset nosuch: no such preset"),
        (
            "filter rows.csv -o out.jsonl",
            3,
            "vlcli filter: rows.csv: CSV is not read; convert it to JSONL",
        ),
        (
            "filter good.jsonl --rejects out.jsonl --report ./out.jsonl",
            2,
            "vlcli filter: --rejects and --report name one file, out.jsonl",
        ),
        ("filter good.jsonl -o out.jsonl --report out.jsonl", 2, "vlcli filter: -o and --report name one"),
        ("retrieve nosuch --data good.jsonl", 2, "vlcli retrieve: nosuch: no such checkpoint or run"),
        ("retrieve nothing --data good.jsonl", 2, "vlcli retrieve: nothing: neither a checkpoint"),
        (
            "zeroshot good.jsonl --data good.jsonl --label-column text",
            3,
            "vlcli zeroshot: good.jsonl: neither safetensors nor",
        ),
        ("visualize nothing --image r.png --text 红", 2, "vlcli visualize: nothing: neither a checkpoint"),
        ("pretrain --recipe emoji-lit-clip --force --resume", 2, "vlcli pretrain: --force and --resume"),
        ("pretrain --recipe emoji-lit-clip -o good.jsonl", 2, "vlcli pretrain: good.jsonl: not a directory"),
    ],
)
def test_one_line(run: Run, folder: Path, line: str, code: int, said: str) -> None:
    done = run(*line.split())
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not (folder / "out.jsonl").exists()


def test_a_query_of_spaces(run: Run, folder: Path) -> None:
    done = run("retrieve", "checkpoint", "--data", "good.jsonl", "--query", " ")
    assert (done.returncode, done.stderr) == (2, "vlcli retrieve: --query is empty\n")


def test_validation_without_rows_is_refused_before_training(run: Run, folder: Path) -> None:
    small = ["--recipe", "emoji-lit-clip", "--init", "image=random", "-o", "run"]
    done = run("pretrain", *small, "--data", "good.jsonl", "--val", "empty.jsonl")
    assert (done.returncode, done.stderr) == (2, "vlcli pretrain: --val empty.jsonl: no rows\n")
    assert not (folder / "run").exists()


def test_the_remarks_of_filter_come_with_its_rows(run: Run, folder: Path) -> None:
    for name in ("good.jsonl", "empty.jsonl"):
        assert "no rules: every row passes" in run("filter", name).stderr


def test_no_arguments_is_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: vlcli" in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_has_no_error_number(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "vlcli", "filter", "-q", "good.jsonl"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "vlcli filter: <stdout>: No space left on device\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_so(folder: Path, number: int) -> None:
    # a shell's background jobs ignore SIGINT, and what they start inherits that: the default is put back
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from vlcli.cli import run; run()"
    command = [sys.executable, "-c", start, "filter", "--max-text-freq", "3", "-o", "out.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(
            '{"image": "r.png", "text": "红"}\n' * 20_000
        )  # more than a pipe holds: it is being read
        process.stdin.flush()
        process.send_signal(number)
        try:
            code = process.wait(30)
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read()
    word, expected = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}[number]
    assert (code, said) == (expected, f"vlcli filter: {word}\n")
    assert not [name for name in os.listdir(folder) if "out.jsonl" in name]


def test_a_picture_that_cannot_be_read_names_its_row(folder: Path) -> None:
    from vlcli.evaluation.embed import decode_row
    from vlcli.shards.pairs import load_pairs

    with pytest.raises(InputError, match=r"^gone.jsonl: image of a: gone.png: No such file or directory$"):
        decode_row(load_pairs(["gone.jsonl"]), 0)


def test_a_container_that_cannot_be_read_names_the_row(run: Run, folder: Path) -> None:
    reference = f"{ROOT}/examples/emoji/raw.parquet#99999"
    (folder / "far.jsonl").write_text(json.dumps({"image": reference, "text": "x"}) + "\n")
    done = run("shard", "far.jsonl", "-o", "shards")
    assert done.returncode == 3
    assert done.stderr.startswith(f"vlcli shard: far.jsonl:1: {reference}: no such row")
    assert not (folder / "shards" / "sizes.json").exists()

"""A reader on a pipe can tell a writer that finished from one that did not, however it ended."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.errors import InputError
from vlcli.records.bad import BadRows
from vlcli.records.pipe import FdStream, LineStream
from vlcli.records.reader import read
from vlcli.records.writer import open_writer

REPOSITORY = Path(__file__).resolve().parents[2]


class Pipe:
    """A real pipe whose other end is read as bytes arrive, by hand or by a thread."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        fcntl.fcntl(self.out, fcntl.F_SETFL, os.O_NONBLOCK)
        self.got = b""

    def drain(self) -> bytes:
        while True:
            try:
                piece = os.read(self.out, 1 << 16)
            except BlockingIOError:
                return self.got
            if not piece:
                return self.got
            self.got += piece


def lines(*sizes: int) -> list[bytes]:
    return [orjson.dumps({"t": "x" * size}) + b"\n" for size in sizes]


def test_the_last_two_bytes_are_withheld_until_more_comes_or_the_end():
    pipe = Pipe()
    stream = LineStream(FdStream(pipe.into))
    a, b = lines(10, 20)
    stream.write(a)
    stream.flush()
    assert pipe.drain() == a[:-2]
    stream.write(b)
    stream.flush()
    assert pipe.drain() == (a + b)[:-2]
    stream.flush()
    assert pipe.drain() == (a + b)[:-2]
    stream.finish()
    assert pipe.drain() == a + b
    os.close(pipe.into)


def test_an_abort_leaves_a_line_that_cannot_parse():
    for written in ([], lines(5), lines(5, 100_000)):
        pipe = Pipe()
        stream = LineStream(FdStream(pipe.into))
        threading.Thread(target=lambda s=stream, w=written: [*map(s.write, w), s.abort()]).start()
        expected = b"".join(written)[:-2] or b"{"
        while len(pipe.drain()) < len(expected):
            select.select([pipe.out], [], [], 5)
        assert pipe.got == expected
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(pipe.got.split(b"\n")[-1])
        os.close(pipe.into)


class Pieces:
    """Stands for a pipe and records each write."""

    is_pipe, is_terminal = True, False

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data) -> int:
        self.pieces.append(bytes(data))
        return len(data)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6000) | st.integers(4085, 4096), min_size=1, max_size=60))
def test_killed_between_any_two_writes_the_last_line_is_cut(sizes):
    sink = Pieces()
    stream = LineStream(sink)  # type: ignore[arg-type]
    content = lines(*sizes)
    for line in content:
        stream.write(line)
    stream.finish()
    assert b"".join(sink.pieces) == b"".join(content)
    sent = b""
    for piece in sink.pieces[:-1]:
        assert len(piece) <= select.PIPE_BUF  # the kernel takes such a piece whole, or not at all
        sent += piece
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(sent.rsplit(b"\n", 1)[-1])


def test_a_non_blocking_pipe_is_waited_for():
    pipe = Pipe()
    fcntl.fcntl(pipe.into, fcntl.F_SETFL, os.O_NONBLOCK)
    data = os.urandom(1 << 20)
    writer = threading.Thread(target=lambda: (FdStream(pipe.into).write(data), os.close(pipe.into)))
    writer.start()
    while writer.is_alive() or len(pipe.got) < len(data):
        select.select([pipe.out], [], [], 5)
        pipe.drain()
    assert pipe.got == data


PROGRAM = """
import os, signal, sys
from vlcli.records.reader import read
from vlcli.records.writer import open_writer
how, format, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_writer(None, format=format) as writer:
    for batch in read(["examples/emoji/raw.parquet"], head=rows or None):
        writer.write(batch)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise KeyError("a bug")
"""


@pytest.mark.parametrize(
    ("format", "rows", "how"),
    [(f, 2500, how) for f in ("jsonl", "arrow") for how in ("end", "raise", "kill")] + [("jsonl", 1, "kill")],
)
def test_the_next_stage_stops_unless_this_one_came_to_its_end(monkeypatch, tmp_path, format, rows, how):
    command = [sys.executable, "-c", PROGRAM, how, format, str(rows)]
    producer = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": "."},
    )
    monkeypatch.setattr("sys.stdin", os.fdopen(os.dup(producer.stdout.fileno())))
    producer.stdout.close()
    seen = 0
    try:
        with open_writer(str(tmp_path / "out.jsonl")) as writer:
            for batch in read([], bad=BadRows("100%", None)):
                writer.write(batch)
                seen += len(batch)
    except InputError as error:
        assert how != "end"
        assert "<stdin>" in str(error)  # noqa: PT017
        assert not (tmp_path / "out.jsonl").exists()
    else:
        # A kill before the first byte leaves an empty pipe, which nothing can tell from no rows.
        assert how == "end" or (how == "kill" and rows == 1 and seen == 0)
        if how == "end":
            assert seen == rows
    finally:
        sys.stdin.close()
        producer.wait()


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_a_failure_before_the_first_row_reaches_the_next_stage(monkeypatch, format):
    pipe = Pipe()
    with pytest.raises(KeyError), open_writer(f"/dev/fd/{pipe.into}", format=format):
        raise KeyError
    os.close(pipe.into)
    monkeypatch.setattr("sys.stdin", os.fdopen(pipe.out))
    with pytest.raises(InputError, match="<stdin>"):
        list(read([]))
    sys.stdin.close()


def test_a_reader_that_left_is_not_written_to():
    pipe = Pipe()
    os.close(pipe.out)
    with pytest.raises(BrokenPipeError):
        LineStream(FdStream(pipe.into)).write(lines(100_000)[0])
    os.close(pipe.into)

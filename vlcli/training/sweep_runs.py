"""The runs of a sweep as processes of their own: each trains, is measured, and leaves a note of what it came to.

    DIR/sweep.json                the command that is common to all
    DIR/RUN/                      a run directory
    DIR/RUN/sweep.json            its place in the grid, and the results of its evaluations
    DIR/RUN.log                   what its commands said

A run that has its note is not trained again, an evaluation that stands in it is not made again; one that was stopped
goes on from its newest checkpoint.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from vlcli.errors import InputError, UsageError
from vlcli.records.atomic import atomic_file
from vlcli.training.sweep import Evaluation, Run, Sweep, described

NOTE = "sweep.json"
VALIDATION = "validation"  # the run's own, of its best checkpoint, where nothing else measures it
_USAGE = 2
_PATIENCE = 120.0  # seconds that a run has for its last checkpoint
_GLANCE = 0.05  # seconds between two looks at the processes


class Reporter(Protocol):
    """Is told how a sweep goes."""

    def started(self, run: Run, stage: str) -> None: ...
    def ended(self, run: Run, note: dict[str, Any], seconds: float) -> None: ...
    def failed(self, run: Run, cause: str) -> None: ...


def claim(folder: Path, sweep: Sweep, *, force: bool) -> None:
    """Make `folder` the sweep's. Raises UsageError where another command's runs stand in it."""
    said = folder / NOTE
    if said.is_file() and not force:
        if read_note(said) != described(sweep):
            raise UsageError(
                f"{folder}: swept with another command: {shlex.join(read_note(said).get('command', ['?']))}",
                remedy="another -o, or --force to train all anew",
            )
        return
    if folder.exists() and not said.is_file() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} exists and is no sweep", remedy="another -o")
    folder.mkdir(parents=True, exist_ok=True)
    _write(said, described(sweep))


def read_note(file: Path) -> dict[str, Any]:
    """A note as it was left. Raises InputError where it is damaged."""
    try:
        found = orjson.loads(file.read_bytes())
        assert isinstance(found, dict)
    except (ValueError, AssertionError):
        raise InputError(
            "not a note of a sweep", file=str(file), remedy="remove it: its run is looked at anew"
        ) from None
    return found


def training_command(sweep: Sweep, run: Run, folder: Path, *, anew: bool = False) -> list[str]:
    """`pretrain … --set … --seed … -o DIR/RUN --resume`."""
    place = str(folder / run.name)
    return [*sweep.command, *run.options(), "-o", place, "--force" if anew else "--resume"]


def measuring_command(one: Evaluation, run: Run, folder: Path) -> list[str]:
    """`retrieve DIR/RUN --data … --json`."""
    return [one.command[0], str(folder / run.name), *one.command[1:], "--json"]


@dataclass
class _Process:
    """A run and what is still to be done of it: None is the training itself."""

    run: Run
    note: dict[str, Any]
    todo: list[Evaluation | None]
    child: subprocess.Popen[bytes] | None = None
    began: float = 0.0  # by time.monotonic, when the first process was started

    @classmethod
    def of(cls, run: Run, sweep: Sweep, folder: Path, *, anew: bool) -> _Process:
        file = folder / run.name / NOTE
        place: dict[str, Any] = {"at": run.at, "seed": run.seed}
        if anew or not file.is_file():
            return cls(run, {**place, "results": {}}, [None, *sweep.evaluations])
        note = {**read_note(file), **place}
        done = note["results"]
        return cls(
            run, note, [one for one in sweep.evaluations if _made_by(done, one.name) != list(one.command)]
        )


def _made_by(results: dict[str, Any], name: str) -> Any:
    return results.get(name, {}).get("command")


def run_all(
    sweep: Sweep, runs: Sequence[Run], folder: Path, reporter: Reporter, *, jobs: int = 1, anew: bool = False
) -> list[Run]:
    """Train and measure `runs`, `jobs` at a time, each with its share of the threads; returns those that failed.

    A run that fails does not stop the others, but for one whose command line is wrong: theirs are too. Interrupted, it
    passes that on, and waits for the last checkpoints.
    """
    waiting = [_Process.of(run, sweep, folder, anew=anew) for run in reversed(runs)]
    running: list[_Process] = []
    failed: list[Run] = []
    with _stopped(running):
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(waiting.pop())
                running[-1].began = time.monotonic()
            for process in list(running):
                code = 0 if process.child is None else process.child.poll()
                if code is None:
                    continue
                if code:
                    running.remove(process)
                    failed.append(process.run)
                    reporter.failed(process.run, _last_line(_log(process.run, folder)))
                    if code == _USAGE:
                        waiting.clear()
                    continue
                if process.child is not None:
                    _keep(process, folder)
                if process.todo:
                    reporter.started(
                        process.run, "training" if process.todo[0] is None else process.todo[0].name
                    )
                    process.child = _start(process, sweep, folder, jobs=jobs, anew=anew)
                else:
                    running.remove(process)
                    reporter.ended(process.run, process.note, time.monotonic() - process.began)
            time.sleep(_GLANCE)
    return failed


def _start(
    process: _Process, sweep: Sweep, folder: Path, *, jobs: int, anew: bool
) -> subprocess.Popen[bytes]:
    """The next thing to be done, as a process; what it says goes to the run's log, what it finds to a file."""
    run, one = process.run, process.todo[0]
    if one is None:
        words = training_command(sweep, run, folder, anew=anew)
    else:
        words = measuring_command(one, run, folder)
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with _log(run, folder).open("ab") as log:
        log.write(f"$ vlcli {shlex.join(words)}\n".encode())
        log.flush()
        with _found(run, folder).open("wb") if one is not None else nullcontext(log) as output:
            return subprocess.Popen(
                [sys.executable, "-m", "vlcli", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=environment,
            )


def _keep(process: _Process, folder: Path) -> None:
    """Write down what a process has left that ended well."""
    one = process.todo.pop(0)
    place, results = folder / process.run.name, process.note["results"]
    if one is None:
        scores = place / "best" / "results.jsonl"
        if scores.is_file():
            lines = scores.read_bytes().splitlines()
            results[VALIDATION] = {"result": orjson.loads(lines[-1])} if lines else {}
    else:
        found = _found(process.run, folder)
        results[one.name] = {"command": list(one.command), "result": orjson.loads(found.read_bytes())}
        found.unlink()
    _write(place / NOTE, process.note)


def _log(run: Run, folder: Path) -> Path:
    return folder / f"{run.name}.log"


def _found(run: Run, folder: Path) -> Path:
    return folder / f"{run.name}.result"


def _write(file: Path, value: dict[str, Any]) -> None:
    with atomic_file(file, force=True) as out:
        out.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else f"see {log}"


@contextmanager
def _stopped(running: list[_Process]) -> Iterator[None]:
    """No run outlives the sweep."""
    try:
        yield
    finally:
        children = [process.child for process in running if process.child is not None]
        for child in children:
            if child.poll() is None:
                child.terminate()
        end = time.monotonic() + _PATIENCE
        for child in children:
            try:
                child.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

"""Where numbers go: metrics.jsonl always, and by accelerate's trackers TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import UsageError

_WANDB_PATIENCE = 30  # seconds that its server has to answer in

_REMEDIES = {"tensorboard": "pip install tensorboard", "wandb": "pip install 'vlcli[wandb]'"}


def chosen(asked: Sequence[str] | None) -> tuple[str, ...]:
    """The trackers of a run: those that are asked for, or where nothing is said TensorBoard if it is installed.

    Raises UsageError for one that is asked for and not installed.
    """
    if asked is None:
        return ("tensorboard",) if importlib.util.find_spec("tensorboard") is not None else ()
    for name in asked:
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"train.trackers: {name} is not installed", remedy=_REMEDIES[name])
    return tuple(dict.fromkeys(asked))


class Trackers:
    """One JSON object per logged step, flushed at once. On resume, lines after the resumed step are cut off, and what
    the trackers show is what the file holds.

    `names` are of `chosen`; `recipe` is what a tracker shows as the run's settings; `warn` is told what is amiss.
    """

    def __init__(
        self,
        run: Path,
        names: Sequence[str] = (),
        *,
        resume_step: int | None = None,
        recipe: dict[str, Any] | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.file = run / "metrics.jsonl"
        if resume_step is not None and self.file.exists():
            kept = [line for line in self.file.read_bytes().splitlines() if _step(line) <= resume_step]
            temporary = self.file.with_name(f".{self.file.name}.tmp")
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
            os.replace(temporary, self.file)
        self._out = open(self.file, "ab")  # noqa: SIM115 (closed by close())
        self._trackers: list[Any] = []
        if "tensorboard" in names:
            self._trackers.append(_tensorboard(run, resume_step))
        if "wandb" in names:
            board = _wandb(run, recipe or {}, warn)
            for line in self.file.read_bytes().splitlines():
                said = orjson.loads(line)
                board.log(dict(_numbers(said)), step=said["step"])
            self._trackers.append(board)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """`values` may nest; the trackers get the numbers under slash-joined names."""
        self._out.write(orjson.dumps({"step": step, **values}) + b"\n")
        self._out.flush()
        numbers = dict(_numbers(values))
        for tracker in self._trackers:
            tracker.log(numbers, step=step)

    def flush(self) -> None:
        """Put the lines on disk; TensorBoard and W&B have written theirs when they were logged."""
        os.fsync(self._out.fileno())

    def close(self) -> None:
        self._out.close()
        for tracker in self._trackers:
            tracker.finish()


def _tensorboard(run: Path, resume_step: int | None) -> Any:
    """Its event files in `tensorboard/`, flushed at every line."""
    # TensorBoard's own imports print to both streams.
    with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
        from accelerate.tracking import TensorBoardTracker

        # TensorBoard drops events of the purge step too; that step's stay.
        purge = None if resume_step is None else resume_step + 1
        tracker = TensorBoardTracker("tensorboard", run, purge_step=purge)
        tracker.start()
    return tracker


def _wandb(run: Path, recipe: dict[str, Any], warn: Callable[[str], None]) -> Any:
    """A run of Weights & Biases in `wandb/`, empty: the caller writes it whole, from the first step on.

    W&B cannot take steps back. It replaces a run by a new one of the same id, though, which a run that is resumed
    keeps: so what is shown is never said twice, and nothing of it is what a killed process said after its checkpoint.
    Offline unless there is a key for the server or $WANDB_MODE says else; `wandb sync` sends what lies in `wandb/`.
    """
    from accelerate.tracking import WandBTracker

    folder = run / "wandb"
    folder.mkdir(exist_ok=True)
    name = folder / "id"
    if not name.exists():
        name.write_text(secrets.token_hex(4))
    for older in folder.glob("offline-run-*"):  # the new one says all that they do
        shutil.rmtree(older)
    settings = {"silent": True, "console": "off", "init_timeout": _WANDB_PATIENCE}
    project = os.environ.get("WANDB_PROJECT") or "vlcli"
    known = {"id": name.read_text(), "name": run.resolve().name, "dir": str(run), "config": recipe}
    for mode in (os.environ.get("WANDB_MODE") or _wandb_mode(), "offline"):
        tracker = WandBTracker(project, mode=mode, settings=settings, **known)
        try:
            tracker.start()
            return tracker
        except Exception as error:  # no key, no network, a wrong project: none of them is worth a run
            if mode == "offline":
                raise
            cause = " ".join(str(error).split())[:200]
            warn(f"W&B cannot be reached ({cause}): its run is kept in {folder}, wandb sync sends it later")
    raise AssertionError


def _wandb_mode() -> str:
    """Never a question on the terminal: online where a key is known, else offline."""
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _step(line: bytes) -> float:
    try:
        return float(orjson.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # half a line, of a process that was killed


def _numbers(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            out += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            out.append((f"{prefix}{name}", float(value)))
    return out

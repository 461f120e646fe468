"""Where numbers go: metrics.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import orjson


class Trackers:
    """One JSON object per logged step, flushed at once. On resume, lines after the resumed step are cut off."""

    def __init__(self, run: Path, *, resume_step: int | None = None) -> None:
        self.file = run / "metrics.jsonl"
        if resume_step is not None and self.file.exists():
            kept = [line for line in self.file.read_bytes().splitlines() if _step(line) <= resume_step]
            temporary = self.file.with_name(f".{self.file.name}.tmp")
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
            os.replace(temporary, self.file)
        self._out = open(self.file, "ab")  # noqa: SIM115 (closed by close())
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            # TensorBoard's own imports print to both streams.
            with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
                from torch.utils.tensorboard import SummaryWriter

            # TensorBoard drops events of the purge step too; that step's stay.
            purge = None if resume_step is None else resume_step + 1
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=purge)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """`values` may nest; TensorBoard gets the numbers under slash-joined names."""
        self._out.write(orjson.dumps({"step": step, **values}) + b"\n")
        self._out.flush()
        if self._board is not None:
            for name, value in _numbers(values):
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Put all that was logged on disk; TensorBoard may keep two minutes of it back."""
        os.fsync(self._out.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self._out.close()
        if self._board is not None:
            self._board.close()


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

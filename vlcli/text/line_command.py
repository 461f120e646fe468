"""A shell command that translates: a text a line in, its translation a line out.

The command is started once for a pair of languages and kept. It is written to and read from by one loop that waits for
whichever is ready, so that neither side can block the other, however much each of them buffers; no more is under way
than the texts of one call. A command that keeps its last lines back until its input ends (most programs do on a pipe,
unless they flush) is noticed when nothing comes any more, and from then on started anew for each call.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from vlcli.errors import VlcliError

PATIENCE = 2.0  # seconds without a line until a command is taken to wait for the end of its input
LONGEST = 16 << 20  # bytes of a line
_AT_ONCE = 0.5  # seconds
_BLOCK = 1 << 16
_GRACE = 2.0  # seconds that a command is given to end by itself when it is told to


class TranslationFailed(VlcliError):
    """The translator did not do its part: exit 1.

    `out_of_step`: it wrote more lines than it was given, so that earlier ones may be those of other texts.
    """

    def __init__(self, cause: str, *, out_of_step: bool = False) -> None:
        super().__init__(cause)
        self.out_of_step = out_of_step


class LineCommand:
    """`command` with {source} and {target} filled in. Calls of `translate` are answered in order by one process."""

    def __init__(self, command: str, source: str, target: str, *, patience: float = PATIENCE) -> None:
        self._command = command.replace("{source}", source).replace("{target}", target)
        self._pair = f"{source}-{target}"
        self._variables = {"VLCLI_SOURCE": source, "VLCLI_TARGET": target}
        self._patience = patience
        self._was_slow = self._holds_back = False  # holds back: answers all only when its input has ended
        self._process: subprocess.Popen[bytes] | None = None
        self._given = self._written = 0  # lines in and out of this process
        self._tail = b""  # of its output: a line that is not whole yet

    def translate(self, texts: Sequence[str]) -> list[str]:
        """A translation for each text, without space around it. Line breaks inside a text become spaces.

        Raises TranslationFailed when the command ends with an error, writes more or fewer lines than it was given,
        or something other than UTF-8.
        """
        if not texts:
            return []
        asked = "".join(" ".join(text.splitlines()) + "\n" for text in texts)
        lines = self._exchange(self._process or self._start(), asked, len(texts))
        if lines is None:
            lines = self._exchange(self._start(), asked, len(texts))
            assert lines is not None, (
                "a command that has just been started cannot have answered earlier calls"
            )
        try:
            return [line.decode().strip() for line in lines]
        except UnicodeDecodeError:
            number = next(i for i, line in enumerate(lines, 1) if not _is_utf8(line))
            number += self._written - len(lines)
            raise self._failure(f"line {number} of its output is not UTF-8") from None

    def finish(self) -> None:
        """End the command's input and see that it ends well and has nothing more to say."""
        if self._process is not None:
            self._exchange(self._process, "", 0, to_the_end=True)

    def close(self) -> None:
        """End the command and all that it has started, at once; nothing of it is left."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says so of what has ended
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Python's own buffering is switched off where the command is in Python: it then need not flush
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self._variables},
            process_group=0,  # its pipeline ends with it; the terminal's Ctrl-C reaches it through us
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._process, self._given, self._written, self._tail = process, 0, 0, b""
        return process

    def _exchange(
        self, process: Any, text: str, wanted: int, *, to_the_end: bool = False
    ) -> list[bytes] | None:
        """Write `text`, read `wanted` lines; with `to_the_end` all that comes until the command has ended.

        None where it had ended well, all earlier calls answered, before it read anything of this one.
        """
        unsent, lines = memoryview(text.encode()), list[bytes]()
        to_the_end |= self._holds_back
        stuck_since = None  # its input was ended for want of an answer, and none has come since
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            if unsent and (self._tail or ready.select(0)):
                self._refuse_more(process)
            before = self._given
            self._given += wanted
            if unsent:
                ready.register(process.stdin, selectors.EVENT_WRITE)
            while True:
                if to_the_end and not unsent and not process.stdin.closed:
                    process.stdin.close()
                waits = not unsent and not process.stdin.closed
                # what it says beyond that is there now, or is found by the next call
                has_all = waits and len(lines) == wanted
                events = ready.select(0 if has_all else self._patience if waits else None)
                if has_all and not events:
                    return lines
                if not events:
                    to_the_end, stuck_since = True, time.monotonic()
                for key, _ in events:
                    if key.fileobj is process.stdin:
                        unsent = self._write(process, unsent)
                        if not unsent:
                            ready.unregister(process.stdin)
                        continue
                    block = os.read(process.stdout.fileno(), _BLOCK)
                    if not block:
                        has_none = not lines and not self._tail and wanted > 0
                        if has_none and self._written == before > 0:
                            self._given = before
                        last = self._end(process)
                        return None if has_none else lines + last
                    if stuck_since is not None:
                        self._learn(time.monotonic() - stuck_since)
                        stuck_since = None
                    lines += self._split(block)
                    if len(lines) > wanted:
                        raise self._out_of_step()

    def _write(self, process: Any, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(process.stdin.fileno(), unsent[:_BLOCK]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:  # its end, and why, is told by its output and its exit status
            return unsent[:0]

    def _split(self, block: bytes) -> list[bytes]:
        *lines, self._tail = (self._tail + block).split(b"\n")
        if len(self._tail) > LONGEST:
            raise self._failure(f"it writes a line of more than {LONGEST >> 20} MiB")
        self._written += len(lines)
        return lines

    def _refuse_more(self, process: Any) -> None:
        """It has spoken though nothing was asked; unless that is its end, which the next write will tell."""
        block = os.read(process.stdout.fileno(), _BLOCK) if not self._tail else b""
        if block or self._tail:
            self._written += max(1, (self._tail + block).count(b"\n"))
            raise self._out_of_step()

    def _learn(self, seconds: float) -> None:
        """Its input has ended for want of an answer, and one came after `seconds`: was that what it waited for?

        If it came at once, it was. Else the command may have been slow, perhaps in starting: it is given time once.
        """
        if seconds < _AT_ONCE or self._was_slow:
            self._holds_back = True
        else:
            self._was_slow, self._patience = True, 2 * (self._patience + seconds)

    def _end(self, process: Any) -> list[bytes]:
        """The command has closed its output: it must have answered all, and end well. Its last line, if unended."""
        process.stdin.close()
        code = process.wait()
        process.stdout.close()
        self._process = None
        last = [self._tail] if self._tail else []
        self._written += len(last)
        if code:
            how = f"exit status {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
            raise self._failure(f"it ended with {how} and has written {self._counts()}")
        if self._written > self._given:
            raise self._out_of_step()
        if self._written < self._given:
            raise self._failure(f"it ended and has written only {self._counts()}")
        return last

    def _counts(self) -> str:
        return f"{self._written:,} line{'' if self._written == 1 else 's'} for {self._given:,}"

    def _out_of_step(self) -> TranslationFailed:
        return self._failure(f"it has written {self._counts()}, not one for each", out_of_step=True)

    def _failure(self, cause: str, **how: bool) -> TranslationFailed:
        return TranslationFailed(f"--translator {self._command!r} ({self._pair}): {cause}", **how)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True

"""A stream of lines on a pipe whose reader can tell whether the writer came to its end.

The last two bytes written so far, `}` and the line end, are withheld until more follows or the stream is
closed well. A writer that fails, or is killed, therefore leaves a last line that no JSON parser accepts, and
`records.jsonl` stops there with exit 3.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from contextlib import suppress
from typing import Any

from vlcli.records.atomic import naming

BUFFER = 1 << 16
WITHHELD = 2
WAIT = 0.5  # seconds; how long a signal may go unnoticed that comes just before a system call blocks


class FdStream(io.RawIOBase):
    """Unbuffered writes to a file descriptor, or to what stands for stdout in a test.

    A pipe is written when it has room: a signal that comes just before a write that blocks would wait for the
    reader. `name` is what an error calls the stream.
    """

    def __init__(self, fd: int | None = None, *, close: bool = False, name: str = "<stdout>") -> None:
        self.name = name
        self._other: Any = None
        if fd is None:
            sys.stdout.flush()
            try:
                fd = sys.stdout.fileno()
            except (OSError, ValueError):
                self._other = sys.stdout.buffer
        self._fd, self._closes = fd, close
        self.is_pipe = fd is not None and stat.S_ISFIFO(os.fstat(fd).st_mode)
        self.is_terminal = fd is not None and os.isatty(fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._fd is None:
            self._other.write(data)
            return len(data)
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            piece = view[done : done + select.PIPE_BUF] if self.is_pipe else view[done:]
            while self.is_pipe and not self.has_room(WAIT):
                pass
            with suppress(BlockingIOError), naming(self.name):  # a parent may have made the pipe non-blocking
                done += os.write(self._fd, piece)
        return done

    def has_room(self, wait: float = 0) -> bool:
        """Whether a write of PIPE_BUF bytes would not block."""
        return self._fd is None or bool(select.select([], [self._fd], [], wait)[1])

    def close(self) -> None:
        if not self.closed and self._closes and self._fd is not None:
            os.close(self._fd)
        super().close()


class LineStream:
    """Whole lines of JSON objects to a stream, the last one unterminated until `finish`."""

    def __init__(self, stream: FdStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._wrote = False

    def write(self, lines: bytes) -> None:
        """`lines` ends with a line end."""
        self._buffer += lines
        if len(self._buffer) >= BUFFER + WITHHELD:
            self._send(len(self._buffer) - WITHHELD)

    def flush(self) -> None:
        if len(self._buffer) > WITHHELD:
            self._send(len(self._buffer) - WITHHELD)

    def finish(self) -> None:
        """A clean end: the withheld bytes follow."""
        if self._buffer:
            self._send(len(self._buffer))

    def abort(self) -> None:
        """A failure: what is buffered goes out without its end, as far as the reader takes it at once: one that
        stands still must not hold the command up. A stream that is still empty gets a brace.
        """
        if len(self._buffer) > WITHHELD:
            self._send(len(self._buffer) - WITHHELD, patient=False)
        if not self._wrote and not self._stream.is_terminal:
            self._stream.write(b"{")

    def _send(self, size: int, *, patient: bool = True) -> None:
        done = 0
        try:
            while done < size and (patient or self._stream.has_room()):
                end = self._end_of_piece(done, size) if self._stream.is_pipe else size
                self._stream.write(self._buffer[done:end])
                done = end
        finally:  # a signal comes between two pieces too: what went out does not go out again
            del self._buffer[:done]
            self._wrote = self._wrote or done > 0

    def _end_of_piece(self, start: int, size: int) -> int:
        """The kernel takes a piece whole (≤ PIPE_BUF), and it ends inside a line, bar the very end.

        A larger write may be cut anywhere when the process is killed in it, just behind a line end too.
        """
        end = min(start + select.PIPE_BUF, size)
        if end < size:
            while end > start + 1 and 0x0A in self._buffer[end - 1 : end + 1]:
                end -= 1
        return end

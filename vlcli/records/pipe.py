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
from typing import Any

BUFFER = 1 << 16
WITHHELD = 2


class FdStream(io.RawIOBase):
    """Unbuffered writes to a file descriptor, or to what stands for stdout in a test."""

    def __init__(self, fd: int | None = None, *, close: bool = False) -> None:
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
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.write(self._fd, view[done:])
            except BlockingIOError:  # a parent has made the pipe non-blocking
                select.select([], [self._fd], [])
        return done

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
        """A failure: what is buffered goes out without its end; a stream that is still empty gets a brace."""
        self.flush()
        if not self._wrote and not self._stream.is_terminal:
            self._stream.write(b"{")

    def _send(self, size: int) -> None:
        with memoryview(self._buffer) as view:
            if self._stream.is_pipe:
                self._send_atomically(view[:size])
            else:
                self._stream.write(view[:size])
        del self._buffer[:size]
        self._wrote = True

    def _send_atomically(self, data: memoryview) -> None:
        """Pieces that the kernel takes whole (≤ PIPE_BUF) and that end inside a line, bar the very end.

        A larger write may be cut anywhere when the process is killed in it, just behind a line end too.
        """
        start, size = 0, len(data)
        while start < size:
            end = min(start + select.PIPE_BUF, size)
            if end < size:
                while end > start + 1 and (data[end - 1] == 0x0A or data[end] == 0x0A):
                    end -= 1
            self._stream.write(data[start:end])
            start = end

"""One writer to a directory, or to a part of one, at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from vlcli.errors import UsageError


class DirectoryLock:
    """A flock on a file, for as long as this object is not released and the process lives.

    The kernel holds it and not the file, so what a killed process leaves blocks nobody. Linux carries it over NFS
    to other hosts. Where a file system has no locks at all, `held` stays False and nothing is excluded.
    """

    def __init__(self, path: Path, what: str) -> None:
        """`what` is what a second writer is told that another works on."""
        self._path, self._what = path, what
        self._fd: int | None = None
        self.held = False

    def acquire(self, *, shared: bool = False, wait: bool = False) -> None:
        """Raises UsageError, naming a process, when another holds it. Once more by the same object: nothing.

        `shared` lets others in who share it too. `wait` does not raise and comes back when the lock is free.
        """
        if self._fd is not None:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(fd, how if wait else how | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 200, 0).decode(errors="replace").strip()
            os.close(fd)
            raise UsageError(
                f"{self._what}: another run writes into it" + (f" ({owner})" if owner else ""),
                remedy="wait for its end, or name another directory",
            ) from None
        except OSError:  # ENOLCK, ENOTSUP: a file system that knows no locks
            os.close(fd)
            return
        self._fd, self.held = fd, True
        with suppress(OSError):  # a disk that is full: the lock itself needs no room
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let others in. The file stays: to remove it would let two hold locks on two files of one name."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd, self.held = None, False

    def __del__(self) -> None:
        self.release()

"""Where a table's images lie: in a tar, behind references, or spooled."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from vlcli.errors import InputError
from vlcli.shards.columns import Column
from vlcli.shards.reader import open_tar

Location = tuple[str, int, int] | str | bytes  # (file, offset, size), a reference, or the image itself


class Part(Protocol):
    """The images of consecutive rows."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> bytes: ...

    def locate(self, row: int) -> Location: ...


class LocatedImages:
    """Reads images by location, in whatever process: it knows nothing of a table, and keeps a few files open."""

    FILES = 64

    def __init__(self) -> None:
        from vlcli.images.resolve import ImageReader

        self._reader = ImageReader()
        self._tars: OrderedDict[str, TarPart] = OrderedDict()

    def read(self, location: Location) -> bytes:
        """The bytes. Raises InputError or OSError for what cannot be read any more."""
        if isinstance(location, bytes):
            return location
        if isinstance(location, str):
            return self._reader.read(location)
        path, offset, size = location
        if path not in self._tars:
            self._tars[path] = TarPart(path, np.empty((0, 2), np.int64))
            if len(self._tars) > self.FILES:
                self._tars.popitem(last=False)[1].close()
        self._tars.move_to_end(path)
        return self._tars[path].read_span(offset, size)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens files for itself."""
        return LocatedImages, ()


class Table(Protocol):
    """What a part can be chosen of."""

    def image_bytes(self, i: int) -> bytes: ...

    def locate(self, i: int) -> Location: ...


class ChosenPart:
    """Some rows of a table, in an order of their own."""

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> bytes:
        return self.table.image_bytes(self.rows[row])

    def locate(self, row: int) -> Location:
        return self.table.locate(self.rows[row])


class TarPart:
    """Rows of one tar. The descriptor is opened at the first read and `os.pread` needs no lock."""

    def __init__(self, path: str, spans: np.ndarray) -> None:
        self.path, self.spans = path, spans  # spans: (n, 2) offset, size
        self._fd: int | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.spans)

    def read(self, row: int) -> bytes:
        return self.read_span(*(int(x) for x in self.spans[row]))

    def locate(self, row: int) -> Location:
        offset, size = (int(x) for x in self.spans[row])
        return self.path, offset, size

    def read_span(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._fd is None:
                self._fd = open_tar(self.path)
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise InputError(
                f"changed while it was read: {len(data)} of {size} bytes at {offset}", file=self.path
            )
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        """A loader's worker process opens the tar for itself."""
        return TarPart, (self.path, self.spans)

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """`close` is bound here: when the interpreter ends, modules may be gone before this."""
        if self._fd is not None:
            close(self._fd)
            self._fd = None

    def __del__(self) -> None:
        self.close()


class ReferencePart:
    """Rows that name their images; embedded ones are spooled to an unlinked temporary file."""

    def __init__(self) -> None:
        from vlcli.images.resolve import ImageReader

        self._reader = ImageReader()  # threads may share it; records.read has applied the image root
        self._references: Column[str | None] = Column()
        self._spans: dict[int, tuple[int, int]] = {}
        self._spool: Any = None

    def add(self, reference: str | None, data: bytes | None) -> None:
        if data is None and reference is not None and reference.startswith("data:"):
            data = self._reader.read(reference)
        if data is not None:
            self._spool = self._spool or tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the table)
            offset = self._spool.seek(0, os.SEEK_END)
            self._spool.write(data)
            self._spans[len(self)] = (offset, len(data))
            reference = None
        self._references.append(reference)

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's worker process: the spool has no name that it could open, so its bytes go along."""
        state = dict(self.__dict__)
        if self._spool is not None:
            self._spool.flush()
            state["_spool"] = os.pread(self._spool.fileno(), os.fstat(self._spool.fileno()).st_size, 0)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if state["_spool"] is not None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the table)
            self._spool.write(state["_spool"])
            self._spool.flush()

    def flush(self) -> None:
        if self._spool is not None:
            self._spool.flush()

    def __len__(self) -> int:
        return len(self._references)

    def read(self, row: int) -> bytes:
        location = self.locate(row)
        return location if isinstance(location, bytes) else self._reader.read(location)

    def locate(self, row: int) -> bytes | str:
        if row in self._spans:
            offset, size = self._spans[row]
            return os.pread(self._spool.fileno(), size, offset)
        reference = self._references[row]
        assert reference is not None
        return reference

"""`open_writer`: batches out, as JSONL, an Arrow IPC stream or Parquet, to a file or to stdout."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from vlcli.errors import UsageError
from vlcli.records.atomic import atomic_file, is_special
from vlcli.records.batch import Batch
from vlcli.records.encode import compressed, json_lines
from vlcli.records.pipe import FdStream, LineStream
from vlcli.records.references import Relocator
from vlcli.records.sources import FORMATS


class Encoder(Protocol):
    """One output format. `finish` makes the output whole; `abort` leaves it recognisably cut."""

    def write(self, batch: Batch) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


class _Lines:
    """JSONL to a file that only appears when it is whole, or to a stream that withholds its end."""

    def __init__(self, out: BinaryIO | LineStream, relocate: Relocator) -> None:
        self._out, self._relocate = out, relocate

    def write(self, batch: Batch) -> None:
        self.write_lines(json_lines(batch, self._relocate))

    def write_lines(self, lines: bytes) -> None:
        if lines:
            self._out.write(lines)

    def finish(self) -> None:
        if isinstance(self._out, LineStream):
            self._out.finish()

    def abort(self) -> None:
        if isinstance(self._out, LineStream):
            self._out.abort()


class Writer:
    """What `open_writer` gives; `rows` counts what was written."""

    def __init__(
        self,
        output: str | None,
        *,
        format: str,
        force: bool,
        image_root: Path | str | None,
        embed_images: bool,
        read_image: Callable[[str], bytes] | None,
        step: Mapping[str, Any] | None,
    ) -> None:
        self.rows = 0
        self._output, self._format, self._force = output, format, force
        start = image_root if image_root is not None else os.path.dirname(output) or "." if output else None
        self._relocate = Relocator(start)
        self._embed, self._read_image, self._step = embed_images, read_image, step
        self._stack: list[AbstractContextManager[Any]] = []
        self._encoder: Encoder | None = None

    def __enter__(self) -> Writer:
        streaming = self._output is None or is_special(self._output)
        if streaming:
            fd = None if self._output is None else os.open(self._output, os.O_WRONLY | os.O_CLOEXEC)
            stream = FdStream(fd, close=fd is not None, name=self._output or "<stdout>")
            self._stack.append(stream)
            self._encoder = self._make(LineStream(stream) if self._format == "jsonl" else stream)
        else:
            assert self._output is not None
            try:
                for opened in (lambda: atomic_file(str(self._output), force=self._force), self._compressed):
                    manager = opened()
                    self._file = manager.__enter__()
                    self._stack.append(manager)
            except BaseException as error:
                self._unwind(error)
                raise
            self._encoder = self._make(self._file)
        return self

    def _compressed(self) -> AbstractContextManager[BinaryIO]:
        return compressed(self._file, str(self._output))

    def _make(self, out: Any) -> Encoder:
        if self._format == "jsonl":
            return _Lines(out, self._relocate)
        from vlcli.records.tables import ArrowEncoder, ParquetEncoder, Tabulator

        tabulate = Tabulator(self._relocate, self._embed, self._read_image, self._step)
        return (ArrowEncoder if self._format == "arrow" else ParquetEncoder)(out, tabulate)

    def write(self, batch: Batch) -> None:
        """Append the rows of `batch`."""
        assert self._encoder is not None, "write outside of the with block"
        self._encoder.write(batch)
        self.rows += len(batch)

    @property
    def relocate(self) -> Relocator | None:
        """What moves the references of rows that another makes lines of; None where the output has no lines."""
        return self._relocate if self._format == "jsonl" else None

    def write_lines(self, lines: bytes, rows: int) -> None:
        """Append `rows` rows as `json_line` writes them, their references moved by `relocate`."""
        assert isinstance(self._encoder, _Lines)
        self._encoder.write_lines(lines)
        self.rows += rows

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        encoder, self._encoder = self._encoder, None
        assert encoder is not None
        if error is None:
            try:
                encoder.finish()
            except BaseException as late:
                self._unwind(late)
                raise
            self._unwind(None)
            return
        with suppress(OSError):  # a reader that left, a full disk: the first error is the one to report
            encoder.abort()
        self._unwind(error)

    def _unwind(self, error: BaseException | None) -> None:
        """Leave what was entered, innermost first; an error on the way spoils the rest."""
        while self._stack:
            manager = self._stack.pop()
            try:
                manager.__exit__(
                    type(error) if error else None, error, error.__traceback__ if error else None
                )
            except BaseException as late:
                if late is error:
                    continue
                self._unwind(late)
                raise


def open_writer(
    output: str | None,
    *,
    format: str | None = None,
    force: bool = False,
    image_root: Path | str | None = None,
    embed_images: bool = False,
    read_image: Callable[[str], bytes] | None = None,
    step: Mapping[str, Any] | None = None,
) -> Writer:
    """A context manager with `.write(batch)`. None or "-" is stdout.

    format: jsonl, arrow or parquet; by default from the name of the file, else jsonl. References become
    relative to the output file, absolute on stdout, relative to `image_root` where it is given. embed_images
    (arrow, parquet): the image column is the struct {bytes, path}, filled from what the rows carry and from
    `read_image(reference)`. step: `lineage.step(...)` to append to the chain of the input (arrow, parquet).

    A file takes its name when the block ends well, and not before. On an exception a stream ends in an
    unterminated line, or without Arrow's end mark. Raises UsageError for Parquet on a stream, and for a file
    that exists.
    """
    output = None if output == "-" else output
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown output format {format!r}", remedy=f"choose one of {', '.join(FORMATS)}")
    format = format or _format_of(output)
    streaming = output is None or is_special(output)
    if format == "parquet" and streaming:
        raise UsageError(
            "Parquet cannot be written to a pipe", remedy="use -o FILE.parquet, or --to arrow for a pipe"
        )
    if format == "parquet" and str(output).endswith((".gz", ".zst")):
        raise UsageError(
            f"{output}: Parquet compresses itself", remedy="leave the .gz or .zst out of the name"
        )
    if embed_images and format == "jsonl":
        raise UsageError("JSON lines carry no pixels", remedy="--embed-images needs --to arrow or parquet")
    return Writer(
        output,
        format=format,
        force=force,
        image_root=image_root,
        embed_images=embed_images,
        read_image=read_image,
        step=step,
    )


def _format_of(output: str | None) -> str:
    name = (output or "").removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        return "parquet"
    return "arrow" if name.endswith((".arrow", ".ipc")) else "jsonl"

"""Where rows of a command come from and go to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError
from vlcli.records.atomic import is_special
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.pieces import Piece, Reading, pieces
from vlcli.records.reader import read
from vlcli.records.sources import sources
from vlcli.records.writer import open_writer


@dataclass(frozen=True)
class Source:
    """What is read, and how."""

    inputs: Sequence[str]
    format: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    head: int | None = None
    image_root: Path | None = None

    def table(self) -> list[dict[str, str]]:
        """For the plan: what will be read."""
        names = [source.name for source in sources(self.inputs)]
        shown = names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} … {names[-1]}"
        lines = [{"rule": "input", "value": shown, "from": "arguments" if self.inputs else "default"}]
        lines += [
            {"rule": "map", "value": f"{new}={old}", "from": "--map"} for old, new in self.renames.items()
        ]
        if self.head is not None:
            lines.append({"rule": "head", "value": str(self.head), "from": "--head"})
        return lines

    def batches(self, inputs: Sequence[str], bad: BadRows, *, image_bytes: bool = False) -> Iterator[Batch]:
        return read(
            inputs,
            format=self.format,
            renames=self.renames,
            head=self.head,
            image_root=self.image_root,
            image_bytes=image_bytes,
            bad=bad,
        )

    def pieces(self, inputs: Sequence[str], *, image_bytes: bool = False) -> Iterator[Piece]:
        """`inputs` are these, or copies of them that can be read twice."""
        return pieces(sources(inputs), Reading(self.format, self.renames, image_bytes, self.image_root))


@dataclass(frozen=True)
class Target:
    """Where rows, rejects and the report go."""

    output: str | None = None
    format: str | None = None
    rejects: Path | None = None
    report: Path | None = None
    force: bool = False
    embed_images: bool = False
    held_out: str | None = None  # where rows that are held out go; its name says the format

    def refuse_clashes(self, *others: tuple[str, Path | None]) -> None:
        """Raises UsageError where two outputs, or one of the `others`, would take one name."""
        if self.held_out == "-" and self.output in (None, "-"):
            raise UsageError(
                "--hold-out-to -: stdout has the rows that are kept", remedy="give these -o FILE"
            )
        taken: dict[str, str] = {}
        for option, path in (
            ("-o", self.output),
            ("--rejects", self.rejects),
            ("--report", self.report),
            ("--hold-out-to", self.held_out),
            *others,
        ):
            if path is None or str(path) == "-" or is_special(str(path)):
                continue
            other = taken.setdefault(os.path.realpath(path), option)
            if other != option:
                raise UsageError(f"{other} and {option} name one file, {path}")

    def of_held_out(self) -> Target:
        """Where the rows held out go, as where the others do."""
        return replace(self, output=self.held_out, format=None)

    def open(
        self, image_root: Path | None, read_image: Callable[[str], bytes] | None, step: dict[str, Any]
    ) -> Any:
        """The writer of the rows, a context manager; `read_image` is asked where images are embedded."""
        return open_writer(
            self.output,
            format=self.format,
            force=self.force,
            image_root=image_root,
            embed_images=self.embed_images,
            read_image=read_image if self.embed_images else None,
            step=step,
        )

    def table(self) -> list[dict[str, str]]:
        """For the plan: what will be written, and what stands there already."""
        lines = []
        for name, path in (
            ("output", self.output),
            ("held out", self.held_out),
            ("rejects", self.rejects),
            ("report", self.report),
        ):
            if path is not None and path != "-":
                fate = "replaced" if self.force else "exists: needs --force"
                lines.append(
                    {"rule": name, "value": str(path), "from": fate if os.path.lexists(path) else "new"}
                )
        return lines or [{"rule": "output", "value": "stdout", "from": "default"}]

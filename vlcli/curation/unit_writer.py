"""The files of units: each appears when it is whole, and is committed by its counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

from vlcli.curation.ends import Source, Target
from vlcli.curation.part_directory import mark
from vlcli.curation.piece_reader import divert
from vlcli.records.atomic import write_json
from vlcli.records.bad import BadRows
from vlcli.records.rejects import RejectsWriter
from vlcli.records.units import Unit
from vlcli.records.writer import Writer


class Contents(Protocol):
    """What the pieces of one unit come to; a context manager."""

    def write(self, came: Any, writer: Writer, rejects: RejectsWriter) -> None:
        """Write what came of one more piece, and count it."""

    def finish(self) -> None:
        """After the last piece."""

    def saved(self) -> dict[str, Any]:
        """The counts, as JSON."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: Any) -> None: ...


class UnitWriter:
    """One unit's file after the other; a context manager, in which the unit at hand leaves nothing when it fails."""

    def __init__(
        self,
        folder: Path,
        target: Target,
        source: Source,
        step: dict[str, Any],
        read_image: Callable[[str], bytes] | None = None,
    ) -> None:
        self._folder, self._kind = folder, target.format or "jsonl"
        self._target, self._source, self._step, self._read_image = target, source, step, read_image
        self._unit: Unit | None = None
        self._contents: Contents | None = None
        self._open = ExitStack()
        self._writer: Any = None
        self._rejects: Any = None

    def add(self, unit: Unit, make: Callable[[], Contents], came: Any, bad: BadRows) -> None:
        self.move_to(unit, make)
        assert self._contents is not None
        bad.rejects = self._rejects
        divert(came, bad, self._rejects)
        self._contents.write(came, self._writer, self._rejects)

    def move_to(self, unit: Unit, make: Callable[[], Contents]) -> None:
        """Commit the unit at hand if it is another, and begin this one unless it stands."""
        if self._unit == unit:
            return
        self.commit()
        if mark(self._folder, unit.number).exists():
            return
        name = f"{unit.number:05}.{self._kind}"
        target = replace(self._target, output=str(self._folder / name), format=self._kind, force=True)
        self._open = ExitStack()
        rejects = (
            self._target.rejects / f"{unit.number:05}.jsonl" if self._target.rejects is not None else None
        )
        self._rejects = self._open.enter_context(RejectsWriter(rejects, force=True))
        self._writer = self._open.enter_context(
            target.open(self._source.image_root, self._read_image, self._step)
        )
        self._unit, self._contents = unit, self._open.enter_context(make())

    def commit(self) -> None:
        if self._unit is not None:
            assert self._contents is not None
            self._contents.finish()
            saved = self._contents.saved()
            self._open.close()
            write_json(mark(self._folder, self._unit.number), saved, force=True)
            self._unit = self._contents = None

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.commit()
        else:
            self._open.__exit__(kind, error, trace)

"""The files of units: each appears when it is whole, and is committed by its counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlcli.curation.ends import Source, Target
from vlcli.curation.found import Found, Progress
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.part_directory import mark
from vlcli.curation.piece_reader import divert
from vlcli.curation.piecework import Outcome
from vlcli.records.atomic import write_json
from vlcli.records.bad import BadRows
from vlcli.records.rejects import RejectsWriter
from vlcli.records.units import Unit


class UnitWriter:
    """One unit's file after the other; a context manager, in which the unit at hand leaves nothing when it fails."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        target: Target,
        source: Source,
        sizes: HeaderSizes,
        step: dict[str, Any],
    ) -> None:
        self._folder, self._kind, self._target, self._source = folder, kind, target, source
        self._sizes, self._step = sizes, step
        self._unit: Unit | None = None
        self._found: Found | None = None
        self._open = ExitStack()
        self._writer: Any = None
        self._rejects: Any = None

    def add(
        self, unit: Unit, make: Callable[[], Found], outcome: Outcome, bad: BadRows, on_progress: Progress
    ) -> None:
        self.move_to(unit, make)
        assert self._found is not None
        bad.rejects = self._rejects
        divert(outcome, bad, self._rejects)
        self._found.write(outcome, self._writer, self._rejects, None, on_progress)

    def move_to(self, unit: Unit, make: Callable[[], Found]) -> None:
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
            target.open(self._source.image_root, self._sizes.read, self._step)
        )
        self._unit, self._found = unit, self._open.enter_context(make())

    def commit(self) -> None:
        if self._unit is not None:
            assert self._found is not None
            self._found.finish()
            saved = self._found.saved()
            self._open.close()
            write_json(mark(self._folder, self._unit.number), saved, force=True)
            self._unit = self._found = None

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.commit()
        else:
            self._open.__exit__(kind, error, trace)

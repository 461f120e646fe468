"""One part's units in a directory that all parts share: which stand, which are to be read, and writing the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from vlcli.curation.ends import Source, Target
from vlcli.curation.part_directory import PRIVATE, claim, locked, mark, part_name, remove_leftovers
from vlcli.curation.unit_writer import Contents, UnitWriter
from vlcli.errors import UsageError
from vlcli.records.atomic import write_json
from vlcli.records.bad import BadRows
from vlcli.records.part import Part
from vlcli.records.pieces import Piece, Reading, pieces
from vlcli.records.references import Relocator
from vlcli.records.sources import sources
from vlcli.records.units import Unit, plan_units

Work = Callable[[Iterator[Piece]], Iterator[Any]]  # pieces → what came of each, in order


@dataclass(frozen=True)
class UnitRun:
    """`mine` are the units of this part, of which those with the numbers `standing` stand."""

    folder: Path
    source: Source
    target: Target
    part: Part
    units: Sequence[Unit]
    mine: Sequence[Unit]
    standing: frozenset[int]

    @property
    def wanted(self) -> list[Unit]:
        """Those to be written."""
        return [unit for unit in self.mine if unit.number not in self.standing]

    @property
    def kind(self) -> str:
        """The format of the units' files."""
        return self.target.format or "jsonl"

    def relocators(self) -> tuple[Relocator | None, Relocator | None]:
        """What moves the references in lines of rows, and of rejects; None where there are no such lines."""
        lines = Relocator(self.source.image_root or self.folder) if self.kind == "jsonl" else None
        return lines, Relocator(self.target.rejects) if self.target.rejects is not None else None

    def write(
        self,
        work: Work,
        make: Callable[[], Contents],
        bad: BadRows,
        on_read: Callable[[int], None],
        *,
        step: dict[str, Any],
        read_image: Callable[[str], bytes] | None = None,
        named_by: str | None = None,
    ) -> None:
        """Write the units that are missing; `step` goes to the end of their lineage. Rows of units that stand are
        numbered anew, but for those behind the last that is missing.

        `named_by` tells what gives rows their ids before they come here; with it a row without one raises UsageError.
        """
        wanted, queue = self.wanted, deque[Unit]()
        read = [unit for unit in self.mine if wanted and unit.number <= wanted[-1].number]
        given = pieces_of(
            self.source,
            read,
            image_bytes=self.target.embed_images,
            standing=self.standing,
            queue=queue,
        )
        writer = UnitWriter(self.folder, self.target, self.source, step, read_image)
        with writer:
            for came in work(given):
                unit = queue.popleft()
                if named_by is not None and came.unnamed:
                    raise UsageError(
                        "rows have no id, and a part alone cannot know which rows of others are equal to them",
                        remedy=named_by,
                    )
                on_read(came.read)
                if unit.number not in self.standing:
                    writer.add(unit, make, came, bad)
            for unit in wanted:  # those without a single row
                writer.move_to(unit, make)
        bad.judge()

    def saved(self) -> Iterator[dict[str, Any]]:
        """What stands of this part's units."""
        return (saved(self.folder, unit) for unit in self.mine)

    def saved_by_all(self) -> list[dict[str, Any]] | None:
        """The same of all parts' units; None while some are missing."""
        if not all(mark(self.folder, unit.number).exists() for unit in self.units):
            return None
        return [saved(self.folder, unit) for unit in self.units]

    def report(self, whole: dict[str, Any]) -> None:
        """Write what all parts have come to."""
        write_json(self.folder / PRIVATE / "report.json", whole, force=True)

    def shown(self) -> dict[str, int]:
        """For this part's report."""
        return {
            "number": self.part.number,
            "count": self.part.count,
            "units": len(self.mine),
            "stood": len(self.standing),
        }


@contextmanager
def begin(
    source: Source, target: Target, part: Part, units: Sequence[Unit], described: dict[str, Any]
) -> Iterator[UnitRun]:
    """This part's share of `units`, which nobody else works on while the block lasts.

    Raises UsageError where another run stands in `target.output`, or another process writes the same part.
    """
    assert target.output is not None
    folder, mine = Path(target.output), part.of(units)
    claim(folder, described, force=target.force)
    with locked(folder / PRIVATE / f"{part_name(part.number)}.lock", f"part {part} of {folder}"):
        for place in (folder, target.rejects):
            remove_leftovers(place, [unit.number for unit in mine])
        standing = frozenset(unit.number for unit in mine if mark(folder, unit.number).exists())
        yield UnitRun(folder, source, target, part, units, mine, standing)


def units_of(source: Source) -> list[Unit]:
    """The plan. Raises UsageError for what cannot be read in parts."""
    if source.head is not None:
        raise UsageError("--head stops after rows of the whole input, and parts each read their own")
    return plan_units(sources(source.inputs), source.format)


def saved(folder: Path, unit: Unit) -> dict[str, Any]:
    return orjson.loads(mark(folder, unit.number).read_bytes())


def pieces_of(
    source: Source,
    units: Sequence[Unit],
    *,
    image_bytes: bool = False,
    standing: frozenset[int] = frozenset(),
    queue: deque[Unit] | None = None,
) -> Iterator[Piece]:
    """The pieces of these units; `queue` is told the unit of each."""
    found = sources(source.inputs)
    reading = Reading(source.format, source.renames, image_bytes, source.image_root)
    for unit in units:
        for piece in pieces(found, reading, [unit]):
            if queue is not None:
                queue.append(unit)
            yield replace(piece, is_wanted=unit.number not in standing)

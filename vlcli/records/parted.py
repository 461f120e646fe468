"""Inputs whose rows have numbers before they are read, so that any stretch of them can be read alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.pieces import Piece, Reading, Shaping, pieces
from vlcli.records.sources import Source, open_source, sources
from vlcli.records.units import Unit, known_by, parquet_metadata, plan_units


@dataclass(frozen=True)
class CountedUnit:
    unit: Unit
    rows: int


class PartedInput:
    """Files to be read in parts. Their units and rows are counted by the first part, and `recorded` for the others."""

    def __init__(self, inputs: Sequence[str], reading: Reading) -> None:
        """Raises UsageError for inputs that do not exist."""
        self._found, self._reading = sources(inputs), reading
        self.units: list[CountedUnit] = []

    @property
    def rows(self) -> int:
        return sum(counted.rows for counted in self.units)

    def count(self) -> None:
        """Raises UsageError for a pipe, InputError for a file that is damaged."""
        units = plan_units(self._found, self._reading.format)
        metadata: dict[str, Any] = {}  # of the Parquet file at hand
        self.units = [CountedUnit(unit, self._rows_in(unit, metadata)) for unit in units]

    def known_by(self) -> dict[str, Any]:
        """What tells these inputs, and how they are read, from others."""
        return {
            "format": self._reading.format,
            "map": dict(self._reading.renames or {}),
            "files": [known_by(_path(source)) for source in self._found],
        }

    def recorded(self) -> list[dict[str, Any]]:
        """The count, for another process that has the same inputs, perhaps in another folder."""
        return [{**asdict(counted.unit), "path": "", "rows": counted.rows} for counted in self.units]

    def restore(self, recorded: Sequence[dict[str, Any]]) -> None:
        """Take over what another process has counted."""
        self.units = []
        for said in recorded:
            said = dict(said)
            rows = said.pop("rows")
            path = _path(self._found[said["source"]])
            self.units.append(CountedUnit(Unit(**{**said, "path": path}), rows))

    def batches(self, span: range, bad: BadRows | None = None) -> Iterator[Batch]:
        """The rows with these numbers, consecutive ones, in order. `bad.seen` counts them.

        Raises InputError for a row that cannot be read, since the rows behind it would have other numbers in a run
        that leaves it out, and when the rows end before the span does; UsageError for a row without `id`.
        """
        wanted: list[Unit] = []
        first = at = 0
        for counted in self.units:
            if at < span.stop and at + counted.rows > span.start:
                if not wanted:
                    first = at
                wanted.append(counted.unit)
            at += counted.rows
        at = first
        shaping = Shaping(self._reading.renames)
        for piece in pieces(self._found, self._reading, wanted) if wanted else ():
            if at >= span.stop:
                break
            rows = piece.rows
            if at + rows <= span.start:
                at += rows
                continue
            for batch in shaping.batches(piece, _Refused(piece)):
                begin, end = max(0, span.start - at), min(len(batch), span.stop - at)
                at += len(batch)
                if begin >= end:
                    continue
                batch = batch.slice(begin, end - begin)
                _require_ids(batch)
                if bad is not None:
                    bad.seen += len(batch)
                yield batch
        if wanted and at < span.stop:
            raise InputError(
                f"the input ends {span.stop - at} rows early: it has changed since its rows were counted",
                file=wanted[-1].path,
            )
        if len(wanted) == len(self.units) and len(span) == self.rows:
            shaping.renames.check_all_seen()

    def _rows_in(self, unit: Unit, metadata: dict[str, Any]) -> int:
        source = self._found[unit.source]
        if not unit.is_whole:
            with open_source(source, self._reading.format) as opened:
                is_parquet = opened.kind == "parquet"
            if is_parquet:
                if unit.path not in metadata:
                    metadata.clear()
                    metadata[unit.path] = parquet_metadata(unit.path)
                return int(metadata[unit.path].row_group(unit.start).num_rows)
        reading = Reading(self._reading.format)
        return sum(piece.rows for piece in pieces(self._found, reading, [unit]))


class _Refused:
    """What a bad row of a piece is to a part."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece

    def __call__(self, line: int, cause: str, raw: Any) -> None:
        place: dict[str, Any] = {"line": line} if self._piece.is_text else {"row": line}
        raise InputError(
            f"{cause}, and in parts every row has to be readable",
            file=self._piece.place.file,
            **place,
            remedy="divert such rows with `vlcli filter` first",
        )


def _require_ids(batch: Batch) -> None:
    if batch.frame["id"].null_count():
        line = batch.frame["line"][int(batch.frame["id"].is_null().arg_true()[0])]
        place = f"{batch.file}:{line}" if batch.text_lines else f"{batch.file}#{line}"
        raise UsageError(
            f"{place}: a row without id, and a part alone cannot know which rows of others are equal to it",
            remedy="let `vlcli filter` write the ids first",
        )


def _path(source: Source) -> str:
    if source.path is None:
        raise UsageError(
            f"{source.name}: a pipe cannot be read in parts", remedy="name files, which every part can open"
        )
    return source.path

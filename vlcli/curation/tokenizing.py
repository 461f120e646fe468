"""Pairs with the ids of their texts as a column: into one output, or a directory with a file for each unit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vlcli import __version__
from vlcli.curation.ends import Source, Target
from vlcli.curation.numbering import IDS, Numbering
from vlcli.curation.part_directory import description
from vlcli.curation.piece_reader import Unmet, divert
from vlcli.curation.shared_work import SharedWork
from vlcli.curation.token_work import Encoded, Encoding, TokenJob, TokenWorker
from vlcli.curation.unit_run import begin, units_of
from vlcli.errors import UsageError
from vlcli.records import lineage
from vlcli.records.bad import BadRows
from vlcli.records.occurrences import Keys
from vlcli.records.part import Part
from vlcli.records.rejects import RejectsWriter
from vlcli.records.writer import Writer

Progress = Callable[[int], None]  # rows of this piece

_NAME_FIRST = "write them with their ids first: vlcli filter FILE… -o named/"


def tokenize_pairs(
    encoding: Encoding,
    source: Source,
    target: Target,
    *,
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Progress = lambda _: None,
) -> dict[str, int]:
    """Writes the pairs with `input_ids`, and `positions` where a label is to be found; returns counts.

    A text that is one string has list[int]; a list of texts has a list of those. A row without text has null.
    `jobs` processes share the work on large inputs; what is written is the same for any number. Raises UsageError
    for what cannot be, InputError for damage and for more bad rows than `max_bad`.
    """
    encoding.check()
    target.refuse_clashes()
    job = TokenJob(encoding, dict(source.renames), head=source.head)
    worker = TokenWorker(job)  # a tokenizer that is not there is told before anything is opened
    with ExitStack() as stack:
        rejects = stack.enter_context(RejectsWriter(target.rejects, force=target.force))
        writer = stack.enter_context(target.open(source.image_root, None, _step(worker)))
        worker.lines = writer.relocate
        work = stack.enter_context(SharedWork(worker, replace(job, lines=worker.lines), jobs))
        numbering = stack.enter_context(Numbering())
        bad, found = BadRows(max_bad, rejects), _Found()
        for came in work.work("encode", source.pieces(source.inputs), _ids_by(numbering)):
            divert(came, bad, rejects)
            found.write(came, writer, rejects)
            on_progress(came.read)
        bad.judge()
        found.check(encoding, source)
        assert found.counts["in"] == bad.seen, f"rows do not add up: {found.counts}"
    return found.counts


def tokenize_part(
    encoding: Encoding,
    source: Source,
    target: Target,
    part: Part,
    *,
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Progress = lambda _: None,
) -> tuple[dict[str, int], dict[str, int]]:
    """The same for the units of one part that do not stand yet, into the directory `target.output`.

    Returns the counts of all units of this part, those that stood already too, and what the part is: `number`,
    `count`, `units`, and how many `stood`. `_vlcli/report.json` has the counts of the whole when the last unit stands.
    Raises UsageError where another run stands there, and for rows without an id where there are several parts.
    """
    encoding.check()
    job = TokenJob(encoding, dict(source.renames))
    worker, units = TokenWorker(job), units_of(source)
    rules = worker.rules() | {"find": encoding.label, "find-column": encoding.label_column}
    described = description("tokenize", rules, source, units, format=target.format or "jsonl")
    with ExitStack() as stack:
        run = stack.enter_context(begin(source, target, part, units, described))
        worker.lines = run.relocators()[0]
        work = stack.enter_context(SharedWork(worker, replace(job, lines=worker.lines), jobs))
        numbering = stack.enter_context(Numbering())
        run.write(
            lambda given: work.work("encode", given, _ids_by(numbering)),
            _Found,
            BadRows(max_bad),
            on_progress,
            step=_step(worker),
            named_by=_NAME_FIRST if part.count > 1 else None,
        )
        found = _Found.of(run.saved())
        if (all_saved := run.saved_by_all()) is not None:
            whole = _Found.of(all_saved)
            whole.check(encoding, source)
            run.report({"command": "tokenize", "inputs": list(source.inputs), **whole.counts})
        return found.counts, run.shown()


def _step(worker: TokenWorker) -> dict[str, Any]:
    return lineage.step("tokenize", __version__, worker.rules())


def _ids_by(numbering: Numbering) -> Callable[[int, Keys], NDArray[np.int64]]:
    return lambda _, keys: numbering.answer(IDS, keys)


class _Found:
    """What the pieces come to: counts, and which columns there were. A context manager, as `Contents` wants it."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("in", "written", "bad", "texts", "tokens", "cut", "found"), 0)
        self._has_labels = False
        self._unmet = Unmet()

    @classmethod
    def of(cls, saved: Any) -> _Found:
        """The sum of what several have `saved`."""
        whole = cls()
        for one in saved:
            whole._add(one["counts"], one["labels"])
            if one["unmet"] is not None:
                whole._unmet.meet(one["counts"]["in"], set(one["unmet"]))
        return whole

    def write(self, came: Encoded, writer: Writer, rejects: RejectsWriter) -> None:
        """Writes what came of one more piece, and counts it; its bad rows are diverted already."""
        self._unmet.meet(came.read, came.unmet)
        rows = {"in": came.read, "written": came.written, "bad": len(came.rejects)}
        assert came.read == came.written + len(came.rejects), f"rows do not add up: {rows}"
        self._add({**rows, **came.counts}, came.has_labels)
        if isinstance(came.rows, bytes):
            writer.write_lines(came.rows, came.written)
            return
        for batch in came.rows:
            writer.write(batch)

    def _add(self, counts: dict[str, int], has_labels: bool) -> None:
        for name, count in counts.items():
            self.counts[name] += count
        self._has_labels |= has_labels

    def check(self, encoding: Encoding, source: Source) -> None:
        """After the last row: a column that was named and that no row had is a slip."""
        if source.head is None:
            self._unmet.check(source.renames)
        if encoding.label_column is not None and self.counts["in"] and not self._has_labels:
            raise UsageError(
                f"--find-column {encoding.label_column}: no row has a column {encoding.label_column!r}"
            )

    def saved(self) -> dict[str, Any]:
        unmet = self._unmet.names
        return {
            "counts": self.counts,
            "labels": self._has_labels,
            "unmet": None if unmet is None else sorted(unmet),
        }

    def finish(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

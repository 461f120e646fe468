"""The statistics of a corpus in one pass, in bounded memory and by any number of processes: Wukong's Table 2, ZERO's
lengths, the words of Wukong's Figure 3 (`counting` says what is counted).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.corpus_numbers import KNOWN
from vlcli.curation.counting import Counting, Saved, Wanted
from vlcli.curation.ends import Source
from vlcli.curation.image_probe import HeaderSizes
from vlcli.curation.numbering import IDS, Numbering
from vlcli.curation.piece_reader import Bad, Came, PieceReader, Unmet, divert
from vlcli.curation.shared_work import SharedWork
from vlcli.curation.where import Where
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece


@dataclass(frozen=True)
class StatisticsJob:
    """What the worker of a run is told once."""

    wanted: Wanted
    renames: dict[str, str]
    head: int | None = None


@dataclass
class Counted(Came):
    """What was done with the rows of a piece."""

    unused: int = 0  # for which the condition does not hold
    where: Any = None  # what it has met
    unmet: set[str] = field(default_factory=set)  # of --map


class StatisticsWorker(PieceReader):
    """Counts what it is given."""

    def __init__(self, job: StatisticsJob) -> None:
        super().__init__(job)
        self._wanted = job.wanted
        self._stack = ExitStack()
        self._stack.callback(super().close)
        self._sizes = self._stack.enter_context(HeaderSizes())
        self.counting = Counting(job.wanted, self._stack)

    def count(self, piece: Piece) -> Generator[Keys, NDArray[np.int64], Counted]:
        """Asks, where the condition reads ids, how often rows without one came before."""
        came = Counted()
        where = Where(self._wanted.where) if self._wanted.where is not None else None
        found = list(self._read(piece, came))
        batches = [batch for batch, _ in found]
        if where is not None and "id" in where.columns:
            batches = yield from self._named(batches)
        for batch, (_, bad) in zip(batches, found, strict=True):
            came.rejects += bad
            if where is not None:
                if "image_id" in where.columns:
                    batch = self._identity.assign_images(batch)
                chosen = batch.take(where.judge(where.view(batch)))
                came.unused += len(batch) - len(chosen)
                batch = chosen
            if self._wanted.probe:
                batch, unreadable = _with_sizes(batch, self._sizes)
                came.rejects += unreadable
            self.counting.add(self._identity.assign_images(batch))
        came.where = where.met if where is not None else None
        came.unmet = self.unmet
        return came

    def save(self, folder: Path) -> Saved:
        """All that was counted, for the first process."""
        return self.counting.save(folder)

    def close(self) -> None:
        self._stack.close()


def collect(
    source: Source,
    wanted: Wanted,
    *,
    max_bad: str = "0",
    jobs: int = 1,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The report; its keys are stable. `on_progress` is told the rows of each piece.

    `jobs` processes share the work on large inputs; the report is the same for any number. Raises UsageError for a
    condition that cannot be, InputError for damage and for more bad rows than `max_bad`.
    """
    if wanted.queries is not None:
        wanted.queries.check()
    where = Where(wanted.where) if wanted.where is not None else None
    job = StatisticsJob(wanted, dict(source.renames), source.head)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlcli-stats-")))
        work = stack.enter_context(SharedWork(StatisticsWorker(job), job, jobs))
        numbering = stack.enter_context(Numbering())
        bad, unmet, unused = BadRows(max_bad), Unmet(), 0
        pieces = source.pieces(source.inputs)
        for came in work.work("count", pieces, lambda _, keys: numbering.answer(IDS, keys)):
            divert(came, bad, None)
            unmet.meet(came.read, came.unmet)
            if where is not None:
                where.absorb(came.where)
            unused += came.unused
            on_progress(came.read)
        if source.head is None:
            unmet.check(source.renames)
        bad.judge()
        if where is not None:
            where.finish()
        counting = work.worker.counting
        counting.merge(work.call("save", folder))
        used = counting.numbers.pairs
        rows = {"in": bad.seen, "used": used, "unused": unused, "bad": bad.count}
        assert bad.seen == used + unused + bad.count, f"rows do not add up: {rows}"
        inputs = list(source.inputs) or ["-"]
        return {"command": "stats", "inputs": inputs, "rows": rows, **counting.shown()}


def cut_words(report: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The report with the `number` most frequent words alone, where more were asked for than are to be told."""
    words = report["words"]
    return {**report, "words": {**words, "top": words["top"][:number]} if words and number else None}


def _with_sizes(batch: Batch, sizes: HeaderSizes) -> tuple[Batch, list[Bad]]:
    """The rows with width and height; and those whose image cannot be read."""
    known = batch.frame.select(KNOWN).to_series()
    if known.all():
        return batch, []
    lacking = batch.take(~known)
    found, unreadable = sizes(lacking)
    places = (~known).arg_true()
    columns = [batch.frame[n].clone().scatter(places, found[n]) for n in ("width", "height")]
    keep, bad = np.ones(len(batch), np.bool_), []
    for place, cause in unreadable:
        row = int(places[place])
        keep[row] = False
        raw = next(iter(batch.slice(row, 1).rows()))
        bad.append(Bad(batch.file, batch.frame["line"][row], cause, raw, batch.text_lines))
    return batch.with_columns(*columns).take(pl.Series(keep)), bad

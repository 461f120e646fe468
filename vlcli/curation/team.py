"""Who does `filter`'s piecework, and how what one process has counted is known to all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlcli.curation.numbering import Numbering
from vlcli.curation.piecework import Job, Outcome, PieceWorker
from vlcli.curation.shared_work import SharedWork
from vlcli.parallel import Crew
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece


class Team(SharedWork[PieceWorker]):
    """A context manager; `run` both passes through it. With `keeps`, what a first pass has parsed is kept."""

    def __init__(self, job: Job, jobs: int, *, keeps: bool = False) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlcli-filter-")))
            if keeps:
                job = replace(job, keep=folder / "again")
                (folder / "again").mkdir()
            super().__init__(PieceWorker(job), job, jobs)
            self._stack.push(stack.pop_all())
        self._folder = folder
        self._is_finished = False

    @property
    def counts_first(self) -> bool:
        return self.worker.counts_first

    def run(self, kind: str, pieces: Iterable[Piece], numbering: Numbering) -> Iterator[Outcome]:
        """`count` or `judge` of every piece, in order; `numbering` is new, or goes on from the parts before."""
        names = self.worker.questions(kind)

        def answer(which: int, keys: Keys) -> NDArray[np.int64]:
            return numbering.answer(names[which], keys)

        return self.work(kind, pieces, answer)

    def _others(self) -> Crew:
        is_new = self._crew is None
        crew = super()._others()
        if is_new and self._is_finished:
            self._tell()
        return crew

    def gather(self) -> None:
        """After the first pass: what all have counted comes together."""
        if self._crew is not None:
            self.worker.merge(self.call("save", self._folder / "counted"))

    def finish(self) -> None:
        """Before the second pass: what has been counted is settled, and all learn of it."""
        self.worker.finish()
        self.know()

    def know(self) -> None:
        """All learn what this process's rules look up."""
        self._is_finished = True
        if self._crew is not None:
            self._tell()

    def _tell(self) -> None:
        folder = self._folder / "known"
        folder.mkdir()
        self.worker.freeze(folder)
        self.call("thaw", folder)

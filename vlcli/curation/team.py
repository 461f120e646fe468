"""Who does `filter`'s piecework: this process, and others beside it once an input proves large."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlcli.curation.numbering import Numbering
from vlcli.curation.piecework import Job, Outcome, PieceWorker
from vlcli.parallel import Crew, run_here
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece

LARGE = 24 << 20  # bytes of input after which it pays to start processes, which takes a second


class Team:
    """A context manager; `run` both passes through it. With `keeps`, what a first pass has parsed is kept."""

    def __init__(self, job: Job, jobs: int, *, keeps: bool = False) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vlcli-filter-")))
        if keeps:
            job = replace(job, keep=self._folder / "again")
            (self._folder / "again").mkdir()
        self._job, self._jobs = job, jobs
        self.worker = self._stack.enter_context(PieceWorker(job))
        self._crew: Crew | None = None
        self._is_finished = False

    @property
    def counts_first(self) -> bool:
        return self.worker.counts_first

    def run(self, kind: str, pieces: Iterable[Piece], numbering: Numbering) -> Iterator[Outcome]:
        """`count` or `judge` of every piece, in order; `numbering` is new, or goes on from the parts before."""
        names = self.worker.questions(kind)
        self.worker.left = self._job.head

        def answer(which: int, keys: Keys) -> NDArray[np.int64]:
            return numbering.answer(names[which], keys)

        rest = iter(pieces)
        yield from run_here(getattr(self.worker, kind), self._first(rest), answer)
        if self.worker.left != 0 and (next_one := next(rest, None)) is not None:
            yield from self._others().run(kind, _and(next_one, rest), answer)

    def _first(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """What this process does alone: all, or the first pieces of a large input."""
        done = 0
        while self.worker.left != 0 and (self._jobs == 1 or (done <= LARGE and self._crew is None)):
            piece = next(pieces, None)
            if piece is None:
                return
            done += piece.size
            yield piece

    def _others(self) -> Crew:
        if self._crew is None:
            self._crew = self._stack.enter_context(Crew(PieceWorker, (self._job,), self._jobs))
            if self._is_finished:
                self._tell()
        return self._crew

    def gather(self) -> None:
        """After the first pass: what all have counted comes together."""
        if self._crew is not None:
            self.worker.merge(self._crew.call("save", self._folder / "counted"))

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
        assert self._crew is not None
        self._crew.call("thaw", folder)

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _and(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest

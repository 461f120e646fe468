"""Who does `filter`'s piecework: this process, and others beside it once an input proves large."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlcli.curation.piecework import IDS, QUERIES, Job, Outcome, PieceWorker
from vlcli.curation.query_cap import QueryRanks
from vlcli.parallel import Crew, run_here
from vlcli.records.identity import Identity
from vlcli.records.occurrences import Keys
from vlcli.records.pieces import Piece

LARGE = 24 << 20  # bytes of input after which it pays to start processes, which takes a second


class Team:
    """A context manager; `run` both passes through it."""

    def __init__(self, job: Job, jobs: int, *, large: int = LARGE) -> None:
        self._job, self._jobs, self._large = job, jobs, large
        self._stack = ExitStack()
        self.worker = PieceWorker(job)
        self._stack.enter_context(self.worker)
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vlcli-filter-")))
        self._crew: Crew | None = None
        self._is_finished = False

    @property
    def counts_first(self) -> bool:
        return self.worker.counts_first

    def run(self, kind: str, pieces: Iterable[Piece]) -> Iterator[Outcome]:
        """`count` or `judge` of every piece, in order."""
        names = self.worker.questions(kind)
        self.worker.left = self._job.head
        with Identity() as identity, QueryRanks() as ranks:
            tables: dict[str, Identity | QueryRanks] = {IDS: identity, QUERIES: ranks}

            def answer(which: int, keys: Keys) -> NDArray[np.int64]:
                return tables[names[which]].answer(keys)

            rest = iter(pieces)
            yield from run_here(getattr(self.worker, kind), self._first(rest), answer)
            if self.worker.left != 0 and (next_one := next(rest, None)) is not None:
                yield from self._others().run(kind, _and(next_one, rest), answer)

    def _first(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """What this process does alone: all, or the first pieces of a large input."""
        done = 0
        while self.worker.left != 0 and (self._jobs == 1 or (done <= self._large and self._crew is None)):
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

    def finish(self) -> None:
        """Between the passes: what all have counted comes together, and all learn of it."""
        if self._crew is not None:
            self.worker.merge(self._crew.call("save", self._folder / "counted"))
        self.worker.finish()
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

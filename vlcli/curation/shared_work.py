"""Who works on the pieces of an input: this process, and others beside it once the input proves large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Any, Generic, Self, TypeVar

from vlcli.curation.piece_reader import PieceJob, PieceReader
from vlcli.parallel import Answer, Crew, run_here
from vlcli.records.pieces import Piece

LARGE = 24 << 20  # bytes of input after which it pays to start processes, which takes a second

W = TypeVar("W", bound=PieceReader)


class SharedWork(Generic[W]):
    """A context manager; all passes over the input go through it. `worker` is this process's."""

    def __init__(self, worker: W, job: PieceJob, jobs: int) -> None:
        """Every other process makes a worker like this one of `job`; methods of it are the kinds of work."""
        self._job, self._jobs = job, 1 if job.head is not None else jobs
        self._stack = ExitStack()
        self.worker = worker
        self._stack.enter_context(worker)
        self._crew: Crew | None = None

    def work(self, kind: str, pieces: Iterable[Piece], answer: Answer) -> Iterator[Any]:
        """What the generator `kind(piece)` of some worker returns, for each piece, in order (see `Crew.run`)."""
        self.worker.left = self._job.head
        rest = iter(pieces)
        yield from run_here(getattr(self.worker, kind), self._first(rest), answer)
        if self.worker.left != 0 and (next_one := next(rest, None)) is not None:
            yield from self._others().run(kind, chain([next_one], rest), answer)

    def call(self, name: str, *args: Any) -> list[Any]:
        """What `name(*args)` of each of the others returns, where there are any."""
        return self._crew.call(name, *args) if self._crew is not None else []

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
            self._crew = self._stack.enter_context(Crew(type(self.worker), (self._job,), self._jobs))
        return self._crew

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

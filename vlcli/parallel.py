"""Work shared among processes, in order: pieces go out, results come back in the order of the pieces.

Some things can only be numbered in input order. A piece's work is therefore a generator: what it yields is a
question, to which the first process sends the answer, and that answers the first questions of all pieces in their
order, the second ones in theirs, and so on. Processes are spawned (polars must not be forked), compute on one thread
each, and end with the first process however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any

_WAIT = 0.5  # seconds; how long a signal may go unnoticed that comes just before the wait
_AHEAD = 2  # pieces that a process holds: one to work on, one that waits for its answer
_ONE_THREAD = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS")


Answer = Callable[[int, Any], Any]  # (which of its questions, 0 the first; the question) → the answer


def run_here(
    work: Callable[[Any], Generator[Any, Any, Any]], pieces: Iterable[Any], answer: Answer
) -> Iterator[Any]:
    """The same as `Crew.run`, in this process."""
    for piece in pieces:
        steps = work(piece)
        number, reply = 0, None
        while True:
            try:
                question = steps.send(reply)
            except StopIteration as end:
                yield end.value
                break
            number, reply = number + 1, answer(number, question)


class Crew:
    """`jobs` processes, each with a worker of its own; a context manager."""

    def __init__(self, make: Callable[..., Any], args: tuple[Any, ...], jobs: int) -> None:
        """Each process calls `make(*args)`: a function of a module, and what can be pickled. Methods of what it returns
        are the kinds of work."""
        context = multiprocessing.get_context("spawn")
        self._messages: queue.SimpleQueue[tuple[int, tuple[Any, ...]]] = queue.SimpleQueue()
        self._processes, self._connections = [], []
        self._outgoing: list[queue.SimpleQueue[tuple[Any, ...] | None]] = []
        kept = {name: os.environ.get(name) for name in _ONE_THREAD}
        try:
            os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
            for number in range(jobs):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, make, args), daemon=True)
                self._connections.append(here)
                self._processes.append(process)
                self._outgoing.append(queue.SimpleQueue())
                process.start()
                there.close()
                for talk in (self._listen, self._speak):
                    threading.Thread(target=talk, args=(number, here), daemon=True).start()
        except BaseException:
            self.kill()
            raise
        finally:
            for name, value in kept.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def _listen(self, number: int, connection: Any) -> None:
        # Always ready to receive, so that no process waits to be heard while this one waits to speak.
        try:
            while True:
                self._messages.put((number, _receive(connection)))
        except (EOFError, OSError):
            self._messages.put((number, ("gone", None, None)))
        except Exception as error:  # it could be sent and cannot be received
            self._messages.put((number, ("error", None, error)))

    def _speak(self, number: int, connection: Any) -> None:
        # A process that computes does not listen, and this one has other things to do than to wait for it.
        try:
            while (message := self._outgoing[number].get()) is not None:
                _send(connection, message)
        except OSError:
            self._messages.put((number, ("gone", None, None)))
        except Exception as error:  # what cannot be pickled
            self._messages.put((number, ("error", None, error)))

    def run(self, kind: str, pieces: Iterable[Any], answer: Answer) -> Iterator[Any]:
        """What the generator `kind(piece)` of some worker returns, for each piece, in order.

        An error is raised where its piece stands in the order, one of `pieces` itself behind them all. Every piece
        asks the same number of questions.
        """
        source, failure = iter(pieces), None
        sent = done = 0
        exhausted = False
        owners: dict[int, int] = {}
        load = [0] * len(self._processes)
        questions: dict[tuple[int, int], Any] = {}  # (which of its questions, piece)
        asked: dict[int, int] = {}  # which of its questions → the piece whose turn it is
        results: dict[int, tuple[str, Any]] = {}
        while True:
            while not exhausted and min(load) < _AHEAD:
                try:
                    piece = next(source)
                except StopIteration:
                    exhausted = True
                except Exception as error:
                    exhausted, failure = True, error
                else:
                    owners[sent] = load.index(min(load))
                    load[owners[sent]] += 1
                    self._send(owners[sent], ("piece", sent, kind, piece))
                    sent += 1
            if done == sent:
                break
            while done not in results:
                number, (what, place, content) = self._receive()
                if what == "ask":
                    questions[content[0], place] = content[1]
                else:
                    results[place] = (what, content)
                    load[number] -= 1
                self._answer(questions, asked, owners, answer)
                if not exhausted and min(load) < _AHEAD:
                    break
            while done in results:
                what, content = results.pop(done)
                del owners[done]
                done += 1
                if what == "error":
                    raise content
                yield content
        if failure is not None:
            raise failure

    def _answer(
        self,
        questions: dict[tuple[int, int], Any],
        asked: dict[int, int],
        owners: dict[int, int],
        answer: Answer,
    ) -> None:
        for which in {which for which, _ in questions}:
            place = asked.get(which, 0)
            while (which, place) in questions:
                reply = answer(which, questions.pop((which, place)))
                self._send(owners[place], ("answer", place, reply))
                place += 1
            asked[which] = place

    def call(self, name: str, *args: Any) -> list[Any]:
        """What `name(*args)` of every process's Worker returns; no piece may be out."""
        for number in range(len(self._processes)):
            self._send(number, ("call", None, name, args))
        found: dict[int, Any] = {}
        while len(found) < len(self._processes):
            number, (_, _, content) = self._receive()
            found[number] = content
        return [found[number] for number in sorted(found)]

    def _receive(self) -> tuple[int, tuple[Any, ...]]:
        while True:
            with contextlib.suppress(queue.Empty):
                number, message = self._messages.get(timeout=_WAIT)
                what, place, content = message
                if what == "gone":
                    self._gone(number)
                if what == "error" and place is None:
                    raise content
                return number, message

    def _send(self, number: int, message: tuple[Any, ...]) -> None:
        self._outgoing[number].put(message)

    def _gone(self, number: int) -> None:
        self._processes[number].join(1)
        code = self._processes[number].exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise RuntimeError(f"a worker process ended by itself ({how}); out of memory? -j 1 needs the least")

    def kill(self) -> None:
        """End the processes wherever they are."""
        for process in self._processes:
            if process.pid is not None:
                process.kill()
        self._close()

    def _close(self) -> None:
        for outgoing in self._outgoing:
            outgoing.put(None)
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if process.pid is not None:
                process.join()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # nothing that they hold is wanted any more


def _send(connection: Any, message: Any) -> None:
    """Large buffers go as they are, and not through the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps((head, [buffer.nbytes for buffer in raw])))
    for buffer in raw:
        if buffer.nbytes:
            connection.send_bytes(buffer)


def _receive(connection: Any) -> Any:
    head, sizes = pickle.loads(connection.recv_bytes())
    return pickle.loads(head, buffers=[connection.recv_bytes() if size else b"" for size in sizes])


def _work(connection: Any, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all; the first process decides
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # no pipe stays open because of a worker
        os.dup2(quiet, stream)
    steps: dict[int, tuple[int, Generator[Any, Any, Any]]] = {}  # of a piece: questions so far, and its work
    worker: Any = None
    reply: tuple[str, int | None, Any]
    while True:
        try:
            what, place, *content = _receive(connection)
        except (EOFError, OSError):
            sys.exit(0)
        try:
            worker = worker or make(*args)
            if what == "call":
                name, values = content
                reply = ("called", place, getattr(worker, name)(*values))
            else:
                if what == "piece":
                    kind, piece = content
                    steps[place] = 0, getattr(worker, kind)(piece)
                number, work = steps.pop(place)
                try:
                    reply = ("ask", place, (number, work.send(content[0] if what == "answer" else None)))
                    steps[place] = number + 1, work
                except StopIteration as end:
                    reply = ("done", place, end.value)
        except Exception as error:
            reply = ("error", place, error)
        try:
            _send(connection, reply)
        except OSError:
            sys.exit(0)
        except Exception as error:  # what cannot be pickled
            _send(connection, ("error", place, RuntimeError(f"{reply[2]!r}: {error}")))

"""Work shared among threads: for what numpy does outside of Python's lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_AHEAD = 4  # results that wait to be taken
_WAIT = 0.1  # seconds until a thread that cannot hand over looks whether anybody still wants it to


def in_threads(jobs: Iterable[Callable[[], Iterable[T]]], threads: int) -> Iterator[T]:
    """What the jobs give, in the order in which it comes.

    Few results wait, however many there are. An error of a job, or of `jobs` itself, is raised here; the threads have
    ended when this ends.
    """
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(_AHEAD)
    source, lock, stopped = iter(jobs), threading.Lock(), threading.Event()

    def say(kind: str, content: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return waiting.put((kind, content), timeout=_WAIT)
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not stopped.is_set():
                with lock:
                    job = next(source, None)
                if job is None:
                    break
                for result in job():
                    say("result", result)
                    if stopped.is_set():
                        break
        except BaseException as error:
            say("error", error)
        else:
            say("end", None)

    team = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    try:
        for thread in team:
            thread.start()
        running = threads
        while running:
            kind, content = waiting.get()
            if kind == "error":
                assert isinstance(content, BaseException)
                raise content
            if kind == "end":
                running -= 1
            else:
                yield content  # type: ignore[misc]
    finally:
        stopped.set()
        for thread in team:
            if thread.ident is not None:
                thread.join()

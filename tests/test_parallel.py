"""Work shared among processes gives what one process gives, in order, and its errors where they belong."""

from __future__ import annotations

import os
import signal
import time

import pytest

from vlcli.errors import InputError
from vlcli.parallel import Crew, run_here


class Totals:
    """A piece is a number; its work asks twice for what came before it."""

    def __init__(self, name: str) -> None:
        self.name, self.done = name, 0

    def work(self, piece):
        time.sleep(0.02 if piece % 5 == 0 else 0)
        if piece == 13:
            raise InputError("thirteen", file="numbers", line=13)
        first = yield piece
        if piece == 17:
            raise InputError("seventeen", file="numbers", line=17)
        second = yield -piece
        self.done += 1
        return piece, first, second

    def die(self, piece):
        yield 0
        os.kill(os.getpid(), signal.SIGKILL)

    def odd(self, piece):
        yield 0
        return lambda: piece

    def count(self) -> int:
        return self.done


def make(name: str) -> Totals:
    return Totals(name)


def asker():
    """Answers with the sum of what the same question has said so far."""
    sums = {0: 0, 1: 0}

    def answer(which, value):
        sums[which] += value
        return sums[which]

    return answer


@pytest.fixture(scope="module")
def crew():
    with Crew(make, ("a",), 2) as crew:
        yield crew


def test_results_and_answers_come_in_the_order_of_the_pieces(crew):
    pieces = [1, 5, 2, 10, 3, 15, 4, 20, 6]
    wanted = list(run_here(Totals("b").work, pieces, asker()))
    assert wanted[2] == (2, 8, -8)
    before = sum(crew.call("count"))
    assert list(crew.run("work", pieces, asker())) == wanted
    assert sum(crew.call("count")) == before + len(pieces)
    assert list(crew.run("work", [], asker())) == []


@pytest.mark.parametrize(("bad", "line"), [([1, 13, 17, 2], 13), ([1, 17, 13], 17), ([5, 1, 13], 13)])
def test_the_first_error_in_order_is_raised_behind_what_comes_before_it(bad, line):
    for run in (
        lambda answer: run_here(Totals("c").work, bad, answer),
        lambda answer: Crew(make, ("c",), 2).run("work", bad, answer),
    ):
        done = []
        with pytest.raises(InputError, match=f"^numbers:{line}: ") as told:
            done += run(asker())
        assert told.value.exit_code == 3


def test_an_error_of_the_pieces_comes_behind_them_all(crew):
    def pieces():
        yield from (1, 2, 3)
        raise InputError("cut", file="x")

    found = []
    with pytest.raises(InputError, match="x: cut"):
        found.extend(result[0] for result in crew.run("work", pieces(), asker()))
    assert found == [1, 2, 3]


def test_a_process_that_dies_is_told_and_nothing_hangs():
    with Crew(make, ("d",), 2) as crew, pytest.raises(RuntimeError, match=r"ended by itself \(signal 9\)"):
        list(crew.run("die", [1, 2, 3], asker()))


def test_what_cannot_travel_is_an_error():
    with Crew(make, ("e",), 1) as crew, pytest.raises(RuntimeError, match="pickle"):
        list(crew.run("odd", [1], asker()))


def test_the_processes_end_with_the_crew():
    with Crew(make, ("f",), 2) as crew:
        processes = crew._processes
        assert list(crew.run("work", [1, 2], asker())) == [(1, 1, -1), (2, 3, -3)]
    assert not any(process.is_alive() for process in processes)
    assert "POLARS_MAX_THREADS" not in os.environ

"""Jobs in threads: all that they give comes, errors do, and nothing is left running."""

from __future__ import annotations

import threading

import pytest

from vlcli.curation.threads import in_threads


def jobs(count, each, begun=None):
    for i in range(count):
        if begun is not None:
            begun.append(i)
        yield lambda i=i: ((i, j) for j in range(each))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("count", "each"), [(0, 5), (1, 0), (2, 100), (50, 7)])
def test_all_results_come_once_and_those_of_a_job_in_order(threads, count, each):
    got = list(in_threads(jobs(count, each), threads))
    assert sorted(got) == [(i, j) for i in range(count) for j in range(each)]
    for i in range(count):
        assert [j for k, j in got if k == i] == list(range(each))


def test_few_results_wait_and_none_is_made_when_nobody_asks_any_more():
    begun: list[int] = []
    before = threading.active_count()
    results = in_threads(jobs(1000, 1, begun), 2)
    assert threading.active_count() == before
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before
    assert len(begun) < 20


def test_an_error_of_a_job_and_one_of_the_jobs_are_raised():
    def broken():
        yield 1
        raise ValueError("in the job")

    def source():
        yield lambda: [1]
        raise ValueError("between jobs")

    before = threading.active_count()
    with pytest.raises(ValueError, match="in the job"):
        list(in_threads([broken, broken, broken], 2))
    with pytest.raises(ValueError, match="between jobs"):
        list(in_threads(source(), 2))
    assert threading.active_count() == before

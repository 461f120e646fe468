"""Any number of processes writes the same bytes."""

from __future__ import annotations

import pytest
from filter_cases import MORE, RULES, corpus

from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.plan import resolve
from vlcli.errors import InputError, UsageError


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few rows, and processes at once."""
    monkeypatch.setattr("vlcli.curation.shared_work.LARGE", 0)
    monkeypatch.setattr("vlcli.records.jsonl.BLOCK", 20_000)


def run(tmp_path, inputs, name, jobs, options=RULES, where=None, **more):
    output, rejects, report = (tmp_path / f"{name}{s}" for s in (".jsonl", ".rejects.jsonl", ".report.json"))
    plan = resolve(None, options, where=where)
    target = Target(str(more.pop("output", output)), None, rejects, report)
    filter_pairs(plan, Source(inputs), target, jobs=jobs, **more)
    return [p.read_bytes() for p in (output, rejects, report) if p.exists()]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("options", "where"),
    [(RULES | MORE, None), (RULES, "id > '8' and width > 150"), ({}, None)],
    ids=["all", "where-id", "none"],
)
def test_one_process_or_two(tmp_path, options, where):
    inputs = corpus(tmp_path, rows=1500, bad=(5, 700, 701))
    one = run(tmp_path, inputs, "one", 1, options, where, max_bad="3")
    two = run(tmp_path, inputs, "two", 2, options, where, max_bad="3")
    assert len(one) == 3
    assert one == two
    assert one[0].count(b"\n") > 100


@pytest.mark.usefixtures("small_pieces")
def test_one_process_or_two_to_parquet(tmp_path):
    inputs = corpus(tmp_path, rows=1500)[2:]
    for jobs in (1, 2):
        run(tmp_path, inputs, str(jobs), jobs, output=tmp_path / f"{jobs}.parquet")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


@pytest.mark.usefixtures("small_pieces")
def test_the_first_bad_row_is_told_whoever_meets_it(tmp_path):
    inputs = corpus(tmp_path, rows=1500, bad=(300, 40, 600))
    for jobs in (1, 2):
        with pytest.raises(InputError, match=r"a\.jsonl:41: not JSON"):
            run(tmp_path, inputs, f"bad{jobs}", jobs)
        assert not list(tmp_path.glob("bad*"))


@pytest.mark.usefixtures("small_pieces")
def test_a_column_that_no_row_has_is_known_when_all_have_been_asked(tmp_path):
    inputs = corpus(tmp_path, rows=600)[:2]
    for jobs in (1, 2):
        with pytest.raises(UsageError, match="no row has a column 'lang'"):
            run(tmp_path, inputs, f"x{jobs}", jobs, {}, "lang = 'zh' or width > 5")
        slip = Source(inputs, renames={"title": "text"})
        with pytest.raises(UsageError, match="--map text=title: no row has a column 'title'"):
            filter_pairs(resolve(None, {}), slip, Target(str(tmp_path / "y")), jobs=jobs)

"""Any number of processes writes the same bytes."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import pytest
from filter_cases import MORE, RULES, corpus

from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.plan import resolve
from vlcli.errors import InputError, UsageError
from vlcli.records.embedded import ParquetImages
from vlcli.records.identity import Identity
from vlcli.records.reader import read


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


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("jobs", [1, 2])
def test_ids_count_equal_rows_that_are_dropped_too(tmp_path, jobs):
    """The first pass tells which rows are equal to others; what it does not tell is that all are alone."""
    rows = [
        {"image": f"{i % 40}.jpg", "text": f"文{i % 8}", "query": "q" if i % 3 else "r", "width": 10 + i % 7}
        for i in range(900)
    ] + [{"image": f"a{i}.jpg", "text": f"孤{i}", "query": "q", "width": 12} for i in range(300)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    output = tmp_path / "out.jsonl"
    options = {"max-per-query": "700", "max-text-freq": "1000"}
    plan = resolve(None, options, where="width < 16")
    filter_pairs(plan, Source([str(path)]), Target(str(output)), jobs=jobs)
    with Identity() as identity:
        wanted = [id for batch in read([str(path)]) for id in identity.assign(batch).frame["id"]]
    kept = [json.loads(line) for line in output.read_text().splitlines()]
    places = {id: place for place, id in enumerate(wanted)}
    assert 600 < len(kept) < 1100
    assert [(rows[places[row["id"]]]["image"], rows[places[row["id"]]]["text"]) for row in kept] == [
        (row["image"], row["text"]) for row in kept
    ]
    assert [places[row["id"]] for row in kept] == sorted(places[row["id"]] for row in kept)
    seen: dict[str, int] = {}
    survivors = []
    for place, row in enumerate(rows):
        if row["width"] < 16:
            seen[row["query"]] = seen.get(row["query"], 0) + 1
            if seen[row["query"]] <= 700:
                survivors.append(place)
    assert [places[row["id"]] for row in kept] == survivors


def test_pixels_are_not_read_twice_to_tell_rows_apart(tmp_path, monkeypatch):
    """Rows with their image inside are numbered one by one."""
    frame = pl.DataFrame({"image": [b"a", b"a", b"b"], "text": ["狗"] * 3})
    frame.write_parquet(tmp_path / "x.parquet")
    asked: list[int] = []

    def sha256(self, rows):
        asked.extend(rows)
        return ["x" if row < 2 else "y" for row in rows]

    monkeypatch.setattr(ParquetImages, "sha256", sha256)
    output = tmp_path / "out.jsonl"
    filter_pairs(
        resolve(None, {"max-text-freq": "5"}), Source([str(tmp_path / "x.parquet")]), Target(str(output))
    )
    ids = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    contents = [f'["{image}",["狗"],{n}]' for image, n in (("x", 0), ("x", 1), ("y", 0))]
    assert ids == [hashlib.sha256(content.encode()).hexdigest()[:32] for content in contents]
    assert asked == [0, 1, 2]

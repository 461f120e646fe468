"""Ids of texts: as a loop over the rows finds them, whoever shares the work and in how many parts."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from filter_cases import corpus

from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.plan import resolve
from vlcli.curation.token_work import Encoding
from vlcli.curation.tokenizing import tokenize_pairs, tokenize_part
from vlcli.errors import InputError, UsageError
from vlcli.records.part import Part
from vlcli.text.tokenizers import load_tokenizer

ENCODING = Encoding(length=8, label="狗")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces of a few rows, units of a few pieces, and processes at once."""
    monkeypatch.setattr("vlcli.curation.shared_work.LARGE", 0)
    monkeypatch.setattr("vlcli.records.units.UNIT_BYTES", 30_000)
    monkeypatch.setattr("vlcli.records.jsonl.BLOCK", 9_000)


def named(tmp_path: Path, rows: int = 900) -> str:
    """The corpus as filter writes it, with ids."""
    filter_pairs(resolve(None, {}), Source(corpus(tmp_path, rows)), Target(str(tmp_path / "named.jsonl")))
    return str(tmp_path / "named.jsonl")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_the_ids_are_those_of_each_text(tmp_path):
    source = Source([named(tmp_path)])
    counts = tokenize_pairs(ENCODING, source, Target(str(tmp_path / "ids.jsonl")))
    tokenizer = load_tokenizer("wordpiece-zh")
    rows = [json.loads(line) for line in Path(tmp_path / "ids.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in Path(source.inputs[0]).read_text().splitlines()]
    total = 0
    for row, given in zip(rows, before, strict=True):
        ids, positions = row.pop("input_ids"), row.pop("positions")
        assert row == given
        texts = [row["text"]] if isinstance(row["text"], str) else row["text"]
        expected = [tokenizer.encode([text], 8)[0][0] for text in texts]
        places = [tokenizer.find([t], [e], ["狗"])[0] for t, e in zip(texts, expected, strict=True)]
        assert (
            ([ids], [positions]) if isinstance(row["text"], str) else (ids, positions) == (expected, places)
        )
        total += sum(map(len, expected))
    assert counts["tokens"] == total
    assert counts["in"] == counts["written"] == len(rows) == 900


@pytest.mark.parametrize("format", ["jsonl", "arrow", "parquet"])
def test_one_process_or_two(tmp_path, format):
    inputs = corpus(tmp_path, 1500, bad=(5, 700)) if format == "jsonl" else corpus(tmp_path, 1500)[2:]
    counts, files = [], []
    for jobs in (1, 2):
        output, rejects = tmp_path / f"{jobs}.{format}", tmp_path / f"{jobs}.rejects"
        target = Target(str(output), rejects=rejects)
        counts.append(tokenize_pairs(ENCODING, Source(inputs), target, max_bad="2", jobs=jobs))
        files.append((output.read_bytes(), rejects.read_bytes()))
    assert counts[0] == counts[1]
    assert counts[0]["bad"] == (2 if format == "jsonl" else 0)
    assert counts[0]["found"] > 20
    assert files[0] == files[1]


def test_the_first_bad_row_is_told_whoever_meets_it_and_one_job_starts_no_process(tmp_path, monkeypatch):
    inputs = corpus(tmp_path, 1500, bad=(300, 40, 499))
    for jobs in (2, 1):
        with pytest.raises(InputError, match=r"a\.jsonl:41: not JSON"):
            tokenize_pairs(ENCODING, Source(inputs), Target(str(tmp_path / "out")), jobs=jobs)
        assert not list(tmp_path.glob("*out*"))
        monkeypatch.setattr("vlcli.curation.shared_work.Crew", None)


def test_the_first_rows_are_as_many_as_were_asked_for(tmp_path):
    source = Source(corpus(tmp_path, 300, bad=(3,)), head=10)
    counts = tokenize_pairs(ENCODING, source, Target(str(tmp_path / "out")), max_bad="1", jobs=2)
    assert (counts["in"], counts["written"], counts["bad"]) == (10, 9, 1)


def test_columns_that_no_row_has(tmp_path):
    inputs, target = corpus(tmp_path, 300)[:2], Target(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="--find-column label: no row has a column 'label'"):
        tokenize_pairs(Encoding(label_column="label"), Source(inputs), target)
    with pytest.raises(UsageError, match="--map text=title: no row has a column 'title'"):
        tokenize_pairs(Encoding(), Source(inputs, renames={"title": "text"}), target)
    assert not list(tmp_path.glob("*out*"))
    slip, units = Encoding(label_column="label"), Source([named(tmp_path, 300)])
    for n in (1, 2):
        folder = Target(str(tmp_path / f"parts{n}"))
        for i in range(n - 1):
            tokenize_part(slip, units, folder, Part(i, n))
        with pytest.raises(UsageError, match="--find-column label: no row has"):  # known when all parts stand
            tokenize_part(slip, units, folder, Part(n - 1, n))


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_any_number_of_parts_writes_the_same_files(tmp_path, format):
    inputs = [named(tmp_path)] if format == "jsonl" else [str(tmp_path / "named.parquet")]
    if format == "parquet":
        columnar = Source(corpus(tmp_path, 900)[2:])
        filter_pairs(resolve(None, {}), columnar, Target(str(tmp_path / "flat.parquet")))
        pl.read_parquet(tmp_path / "flat.parquet").write_parquet(inputs[0], row_group_size=80)
    source = Source(inputs)
    stream = tokenize_pairs(ENCODING, source, Target(str(tmp_path / "s" / "stream.jsonl")))
    trees = []
    for n in (1, 3):
        folder, total = tmp_path / f"parts{n}", dict.fromkeys(stream, 0)
        for i in reversed(range(n)):
            counts, part = tokenize_part(ENCODING, source, Target(str(folder), format), Part(i, n))
            total = {name: total[name] + counts[name] for name in total}
            assert (part["number"], part["count"], part["stood"]) == (i, n, 0)
        assert total == stream
        told = json.loads((folder / "_vlcli" / "report.json").read_text())
        assert {name: told[name] for name in stream} == stream
        trees.append(tree(folder))
    assert trees[0] == trees[1]
    assert len(trees[0]) > 3
    if format == "jsonl":
        files = b"".join(trees[0][name] for name in sorted(trees[0]))
        assert files == (tmp_path / "s" / "stream.jsonl").read_bytes()


def test_what_is_missing_is_written_again_and_nothing_else(tmp_path):
    source = Source(corpus(tmp_path, 900)[:2])  # without ids: they are numbered anew
    target = Target(str(tmp_path / "ids"), rejects=tmp_path / "rejects")
    tokenize_part(ENCODING, source, target, Part())
    files = tree(tmp_path / "ids")
    lost = sorted(files)[2]
    (tmp_path / "ids" / "_vlcli" / "units" / lost.replace("jsonl", "json")).unlink()
    (tmp_path / "ids" / lost).write_bytes(b"half")
    times = {name: (tmp_path / "ids" / name).stat().st_mtime_ns for name in files}
    counts, part = tokenize_part(ENCODING, source, target, Part())
    assert tree(tmp_path / "ids") == files
    assert [n for n in files if (tmp_path / "ids" / n).stat().st_mtime_ns != times[n]] == [lost]
    assert (part["units"], part["stood"], counts["written"]) == (len(files), len(files) - 1, 600)


def test_what_is_refused(tmp_path):
    source, target = Source(corpus(tmp_path, 300)), Target(str(tmp_path / "ids"))
    with pytest.raises(UsageError, match=r"rows have no id.*\n?.*filter"):
        tokenize_part(ENCODING, source, target, Part(0, 2))
    tokenize_part(ENCODING, source, target, Part())
    for other in (Encoding(length=9, label="狗"), Encoding(length=8), Encoding(length=8, label="猫")):
        with pytest.raises(UsageError, match="made with other rules"):
            tokenize_part(other, source, target, Part())
    with pytest.raises(UsageError, match="--head"):
        tokenize_part(ENCODING, Source(source.inputs, head=3), target, Part())
    filter_pairs(resolve(None, {}), source, Target(str(tmp_path / "kept.jsonl")))
    from vlcli.curation.parts import filter_part

    with pytest.raises(UsageError, match="other command: tokenize then, filter now"):
        filter_part(resolve(None, {}), source, target, Part())

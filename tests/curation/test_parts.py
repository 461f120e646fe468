"""A corpus in parts: any number of them writes the files that one process writes, and what stops goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from filter_cases import MORE, RULES, corpus

from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.parts import count_part, filter_part
from vlcli.curation.plan import resolve
from vlcli.errors import Incomplete, InputError, UsageError
from vlcli.records.part import Part, parse_part

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr("vlcli.records.units.UNIT_BYTES", 30_000)
    monkeypatch.setattr("vlcli.records.jsonl.BLOCK", 9_000)


def tree(folder):
    """Name → bytes, but for what is not promised."""
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.is_file()}


def in_parts(tmp_path, inputs, n, options, *, rounds=2, name=None, **target):
    plan, source = resolve(None, options), Source(inputs)
    name = name or f"parts{n}"
    for _ in range(rounds):
        for i in range(n):
            count_part(plan, source, tmp_path / f"{name}.counts", Part(i, n))
    reports = {}
    for i in sorted(range(n), key=lambda i: -i):  # in any order
        output = Target(str(tmp_path / name), rejects=tmp_path / f"{name}.rejects", **target)
        reports[i] = filter_part(plan, source, output, Part(i, n), tmp_path / f"{name}.counts")
    return tmp_path / name, reports


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        (RULES | MORE, (3,)),
        (RULES, (2, 5)),
        ({"max-text-freq": "10"}, (3,)),
        ({"min-side": "200"}, (3,)),
    ],
    ids=["all", "wukong", "frequency", "size"],
)
def test_any_number_of_parts_writes_the_same_files(tmp_path, monkeypatch, options, counts):
    monkeypatch.setattr("vlcli.records.units.UNIT_BYTES", 9_000)
    inputs = corpus(tmp_path, rows=900)
    plan, source = resolve(None, options), Source(inputs)
    stream, rejects = tmp_path / "s" / "stream.jsonl", tmp_path / "r" / "rejects.jsonl"
    report = filter_pairs(plan, source, Target(str(stream), rejects=rejects))
    alone = Target(str(tmp_path / "alone"), rejects=tmp_path / "alone.rejects")
    whole = filter_part(plan, source, alone, Part())
    for key in ("rows", "texts", "rules", "checksum", "dropped_texts", "masked"):
        assert whole[key] == report[key]
    files = tree(tmp_path / "alone")
    assert len(files) > 8
    assert b"".join(files[name] for name in sorted(files)) == stream.read_bytes()
    dropped = tree(tmp_path / "alone.rejects")
    assert b"".join(dropped[name] for name in sorted(dropped)) == rejects.read_bytes()
    for n in counts:
        folder, reports = in_parts(tmp_path, inputs, n, options)
        assert tree(folder) == files
        assert tree(tmp_path / f"parts{n}.rejects") == dropped
        for key in ("kept", "in", "dropped"):
            assert sum(r["rows"][key] for r in reports.values()) == report["rows"][key]
        merged = json.loads((folder / "_vlcli" / "report.json").read_text())
        for key in ("rows", "texts", "rules", "checksum"):
            assert merged[key] == report[key]


def test_parquet_in_parts(tmp_path):
    inputs = corpus(tmp_path, rows=900)[2:]
    folder, _ = in_parts(tmp_path, inputs, 2, {"min-side": "200"}, format="parquet")
    other, _ = in_parts(tmp_path, inputs, 3, {"min-side": "200"}, format="parquet")
    assert tree(folder) == tree(other)
    assert pl.read_parquet(folder / "*.parquet").height > 100


def test_what_stands_is_not_written_again_and_what_is_missing_is(tmp_path):
    inputs = corpus(tmp_path, rows=900)
    folder, _ = in_parts(tmp_path, inputs, 2, RULES, name="kept")
    files = tree(folder)
    lost = sorted(files)[1]
    (folder / "_vlcli" / "units" / lost.replace("jsonl", "json")).unlink()
    (folder / lost).write_bytes(b"half")
    times = {name: (folder / name).stat().st_mtime_ns for name in files}
    _, reports = in_parts(tmp_path, inputs, 2, RULES, name="kept")
    assert tree(folder) == files
    written = [name for name in files if (folder / name).stat().st_mtime_ns != times[name]]
    assert written == [lost]
    assert reports[1]["part"]["stood"] == reports[1]["part"]["units"]


def test_other_input_rules_or_parts_are_refused(tmp_path):
    inputs = corpus(tmp_path, rows=600)
    plan, source = resolve(None, {"min-side": "200"}), Source(inputs)
    target = Target(str(tmp_path / "kept"))
    filter_part(plan, source, target, Part())
    with pytest.raises(UsageError, match="made with other rules"):
        filter_part(resolve(None, {"min-side": "201"}), source, target, Part())
    with pytest.raises(UsageError, match=r"made with other format: jsonl then, parquet now"):
        filter_part(plan, source, replace(target, format="parquet"), Part())
    with open(inputs[0], "a") as file:
        file.write('{"id": "new", "width": 300, "height": 300}\n')
    with pytest.raises(UsageError, match="made with other inputs"):
        filter_part(plan, source, target, Part())
    filter_part(plan, source, replace(target, force=True), Part())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        filter_part(plan, source, Target(str(tmp_path / "full")), Part())


def test_counts_that_are_not_complete_are_refused(tmp_path):
    inputs = corpus(tmp_path, rows=600)
    plan, source, counts = resolve(None, RULES), Source(inputs), tmp_path / "counts"
    target = Target(str(tmp_path / "kept"))
    with pytest.raises(UsageError, match="a part alone cannot count"):
        filter_part(plan, source, target, Part(0, 2))
    with pytest.raises(UsageError, match="no counts stand there"):
        filter_part(plan, source, target, Part(0, 2), counts)
    assert "again" in count_part(plan, source, counts, Part(0, 2))
    with pytest.raises(Incomplete, match="1 of 2 parts are not counted yet, the first is 1"):
        count_part(plan, source, counts, Part(0, 2))
    with pytest.raises(UsageError, match="other parts: 2 then, 3 now"):
        count_part(plan, source, counts, Part(0, 3))
    count_part(plan, source, counts, Part(1, 2))
    assert count_part(plan, source, counts, Part(0, 2)) == "is counted"
    assert count_part(plan, source, counts, Part(0, 2)) == "was counted already"
    with pytest.raises(Incomplete, match="the first is 1") as told:
        filter_part(plan, source, target, Part(0, 2), counts)
    assert told.value.exit_code == 4
    with pytest.raises(UsageError, match="other parts"):
        filter_part(plan, source, target, Part(0, 3), counts)


def test_rows_without_ids_need_counts_and_rows_with_ids_do_not(tmp_path):
    inputs = corpus(tmp_path, rows=600)
    plan = resolve(None, {"min-side": "200"})
    with pytest.raises(UsageError, match="rows have no id"):
        filter_part(plan, Source(inputs), Target(str(tmp_path / "kept")), Part(0, 2))
    filter_pairs(resolve(None, {}), Source(inputs), Target(str(tmp_path / "named.jsonl")))
    named = Source([str(tmp_path / "named.jsonl")])
    filter_pairs(plan, named, Target(str(tmp_path / "s" / "stream.jsonl")))
    for i in range(2):
        filter_part(plan, named, Target(str(tmp_path / "in_two")), Part(i, 2))
    files = tree(tmp_path / "in_two")
    assert b"".join(files[n] for n in sorted(files)) == (tmp_path / "s" / "stream.jsonl").read_bytes()


def test_ranks_in_a_query_go_on_from_part_to_part(tmp_path):
    rows = [{"id": str(i), "text": "t", "query": f"q{i % 2}"} for i in range(12)]
    inputs = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    for path, mine in zip(inputs, (rows[:6], rows[6:]), strict=True):
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in mine))
    plan = resolve(None, {"max-per-query": "4"})
    with pytest.raises(UsageError, match="a part alone cannot count"):
        filter_part(plan, Source(inputs), Target(str(tmp_path / "kept")), Part(0, 2))
    folder, _ = in_parts(tmp_path, inputs, 2, {"max-per-query": "4"}, rounds=1)
    ids = [
        json.loads(line)["id"] for name in sorted(tree(folder)) for line in tree(folder)[name].splitlines()
    ]
    assert ids == [str(i) for i in range(8)]


def test_a_bad_row_leaves_the_units_before_it(tmp_path):
    inputs = corpus(tmp_path, rows=900, bad=(250,))
    with pytest.raises(InputError, match=r"a\.jsonl:251: not JSON"):
        filter_part(resolve(None, {}), Source(inputs), Target(str(tmp_path / "kept")), Part())
    files = tree(tmp_path / "kept")
    assert files
    assert not [p for p in (tmp_path / "kept").iterdir() if p.name.startswith(".")]
    filter_part(resolve(None, {}), Source(inputs), Target(str(tmp_path / "kept")), Part(), max_bad="1")
    assert files.items() <= tree(tmp_path / "kept").items()


def test_two_on_one_part(tmp_path):
    corpus(tmp_path, rows=300)
    line = [sys.executable, "-m", "vlcli", "filter", "a/a.jsonl", "--min-side", "200", "-o", "kept/", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    hold = (
        "import fcntl, pathlib, sys; p = pathlib.Path('kept/_vlcli'); p.mkdir(parents=True)\n"
        "f = open(p / 'part-00000.lock', 'wb'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        second = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert second.returncode == 2
        assert b"part 0/1 of kept: another run writes into it" in second.stderr
        other.kill()
    assert (
        subprocess.run(line, cwd=tmp_path, env=environment, check=False).returncode == 0
    )  # a lock dies with its holder
    assert tree(tmp_path / "kept")


@pytest.mark.parametrize("value", ["1", "1/", "2/2", "-1/2", "a/b", "0/0"])
def test_parts_that_cannot_be(value):
    with pytest.raises(UsageError, match="is not i/n"):
        parse_part(value)


def test_parts_are_consecutive_and_cover_the_plan():
    units = list(range(11))
    for n in (1, 2, 3, 11, 20):
        assert [u for i in range(n) for u in Part(i, n).of(units)] == units

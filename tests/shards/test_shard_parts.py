"""Shards by a job array: any number of parts gives the tree of one run, in any order, at once, killed or not."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from shard_cases import make_rows, picture, shard, tree, vlcli

from vlcli.errors import InputError, UsageError
from vlcli.records.parted import PartedInput
from vlcli.records.pieces import Reading
from vlcli.records.reader import read
from vlcli.records.units import plan_units
from vlcli.shards.check import check_directory


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr("vlcli.records.units.UNIT_BYTES", 700)
    monkeypatch.setattr("vlcli.records.jsonl.BLOCK", 300)


def broken(i: int, row: dict, file: Path) -> dict:
    """The first image, and those of a whole part, are no images; the first good one is a JPEG, the others PNG."""
    if i == 0 or 21 <= i < 30:
        file.write_bytes(b"no image")
    if i == 1:
        file.write_bytes(picture(i, "JPEG"))
    if i == 17:
        file.unlink()
    if i == 18:
        row["text"] = " "
    return row | {"id": f"row-{i}"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """47 rows in JSONL with blank lines, gzip, Parquet of several row groups, and Arrow."""
    folder = tmp_path_factory.mktemp("parts") / "in"
    lines = make_rows(folder, 47, change=broken, name="all.txt").read_text().splitlines()
    (folder / "a.jsonl").write_text("\ufeff" + "\n\n \n".join(lines[:20]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[20:29]).encode()))
    rows = [json.loads(line) for line in lines[29:]]
    pl.DataFrame(rows[:13]).write_parquet(folder / "c.parquet", row_group_size=4)
    pl.DataFrame(rows[13:]).write_ipc(folder / "d.arrow")
    (folder / "e.jsonl").write_text("\n")
    return folder


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(made, tmp_path / "in")


def part(source: Path, output: Path, which: str, *more: str) -> None:
    options = ["--per-shard", "5", "--max-bad", "20", "-q", "-j", "1"]
    vlcli("shard", str(source), "-o", str(output), "--part", which, *options, *more)


@pytest.fixture(scope="module")
def whole(made: Path) -> dict[str, bytes]:
    shard(made, made.with_name("whole"), per_shard=5, max_bad="20")
    return tree(made.with_name("whole"))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_any_number_of_parts_gives_one_tree(corpus, tmp_path, whole, count) -> None:
    out = tmp_path / "out"
    for number in reversed(range(count)):
        assert (out / "sizes.json").exists() == (len(list(out.glob("*_stats.json"))) == 10)
        part(corpus, out, f"{number}/{count}")
    assert tree(out) == whole
    assert check_directory(out, deep=True).findings == []
    # Each again finds nothing to do, and the whole is what one run would go on with.
    part(corpus, out, f"0/{count}")
    assert tree(out) == whole
    assert shard(corpus, out, per_shard=5, max_bad="20", retry=True).skipped == 10
    with pytest.raises(UsageError, match="a run without --part wrote it"):
        part(corpus, out, f"0/{count}")


def test_every_stretch_of_rows_can_be_read_alone(corpus) -> None:
    source = PartedInput([str(corpus)], Reading())
    source.count()
    assert len(source.units) > 9
    ids = [i for batch in read([str(corpus)]) for i in batch.frame["id"].to_list()]
    assert source.rows == len(ids) == 47
    other = PartedInput([str(corpus)], Reading())
    other.restore(json.loads(json.dumps(source.recorded())))
    assert other.units == source.units
    stretches = [(row, row + 1) for row in range(47)] + [(0, 0), (47, 47), (0, 47)]
    stretches += random.Random(0).sample(list(itertools.combinations(range(48), 2)), 60)
    for start, stop in stretches:
        found = [i for b in other.batches(range(start, stop)) for i in b.frame["id"].to_list()]
        assert found == ids[start:stop]


def test_the_plan_says_which_shards(corpus, tmp_path, capsys) -> None:
    part(corpus, tmp_path / "out", "1/3", "--dry-run")
    assert capsys.readouterr().out.splitlines() == [
        f"part 1/3 would write 15 rows into 3 shards of 5 in {tmp_path / 'out'}/",
        "00003.tar … 00005.tar, encode=keep, resize=None",
    ]
    assert not (tmp_path / "out").exists()


def test_a_part_says_what_is_missing(corpus, tmp_path, capsys) -> None:
    line = ["shard", str(corpus), "-o", str(tmp_path / "out"), "--per-shard", "5", "--max-bad", "20"]
    vlcli(*line, "--part", "1/2")
    assert "5 of 10 shards, of other parts, are still missing" in capsys.readouterr().err
    vlcli(*line, "--part", "0/2", "--expect", "47")
    assert "all 10 shards stand" in capsys.readouterr().err
    with pytest.raises(InputError, match="47 rows in all, --expect 46"):
        vlcli(*line, "--part", "0/2", "--expect", "46")


@pytest.mark.parametrize(
    ("which", "more", "message"),
    [
        ("0/3", [], "begun in 2 parts, and this is 0/3"),
        ("0/2", ["--per-shard", "6"], "another --per-shard: 5 then, 6 now"),
        ("0/2", ["--encode", "png"], "another --encode: keep then, png now"),
        ("0/2", ["--map", "text=family"], "begun with other --map"),
        ("0/2", ["--force"], "--force would remove what the other parts have written"),
        ("0/2", ["--retry-failed"], "--retry-failed is for the whole directory"),
        ("0/2", ["--head", "3"], "--head stops after rows of the whole input"),
        ("2/2", [], "is not i/n with 0 <= i < n"),
    ],
)
def test_what_would_be_another_run_is_refused(corpus, tmp_path, which, more, message) -> None:
    out = tmp_path / "out"
    part(corpus, out, "1/2")
    before = tree(out)
    with pytest.raises(UsageError, match=message):
        part(corpus, out, which, *more)
    assert tree(out) == before
    # Neither may one run over the whole go on here, until all parts stand.
    with pytest.raises(UsageError, match="it is being written in 2 parts"):
        shard(corpus, out, per_shard=5, max_bad="20")


def test_other_input_is_refused(corpus, tmp_path) -> None:
    part(corpus, tmp_path / "out", "1/2")
    text = (corpus / "a.jsonl").read_text()
    (corpus / "a.jsonl").write_text(text.replace("第3张", "第叁张"))
    with pytest.raises(UsageError, match="begun with other input files"):
        part(corpus, tmp_path / "out", "0/2")


def test_rows_that_would_shift_numbers_are_refused(tmp_path) -> None:
    rows = make_rows(tmp_path, 4, change=broken)
    good = rows.read_text().splitlines()
    rows.write_text("\n".join([*good[:3], "[]", good[3]]) + "\n")
    with pytest.raises(InputError, match=r"rows.jsonl:4: not a JSON object.*`vlcli filter` first"):
        part(rows, tmp_path / "out", "0/1")
    make_rows(tmp_path, 4)
    with pytest.raises(UsageError, match=r"rows.jsonl:1: a row without id"):
        part(rows, tmp_path / "other", "0/1")
    assert not tree(tmp_path / "out")
    assert not tree(tmp_path / "other")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine").touch()
    with pytest.raises(UsageError, match="not empty"):
        part(rows, foreign, "0/1")
    assert [p.name for p in foreign.iterdir()] == ["mine"]


def test_a_part_leaves_the_others_alone(corpus, tmp_path, whole) -> None:
    out = tmp_path / "out"
    part(corpus, out, "0/2")
    theirs, own = out / ".00002.tar.0badcafe.tmp", out / ".00007.tar.0badcafe.tmp"
    theirs.touch()
    own.touch()
    (out / "_vlcli" / "part-00000.jsonl").open("ab").write(b'{"shard": 4, "ro')
    part(corpus, out, "1/2")
    assert theirs.exists()
    assert not own.exists()
    theirs.unlink()
    (out / "00001.parquet").unlink()  # sizes.json stands, and a shard is lost
    before = (out / "00000.tar").stat().st_mtime_ns
    part(corpus, out, "0/2")
    assert (out / "00000.tar").stat().st_mtime_ns == before
    assert tree(out) == whole


def test_all_at_once_and_killed_again_and_again(tmp_path) -> None:
    rows = make_rows(tmp_path, 120, change=broken)
    shard(rows, tmp_path / "whole", per_shard=6, max_bad="20")
    program = [sys.executable, Path(__file__).with_name("killed_parts.py")]
    done = subprocess.run(
        [*program, rows, tmp_path / "out", tmp_path / "whole", "4"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kills, together = done.stdout.split()
    assert int(kills) >= 4
    assert int(together) > 0


def test_no_rows_no_data_set(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    part(tmp_path / "rows.jsonl", tmp_path / "out", "1/2")
    assert tree(tmp_path / "out") == {}


def test_no_good_image_at_all(tmp_path) -> None:
    def none(i: int, row: dict, file: Path) -> dict:
        file.write_bytes(b"")
        return row | {"id": str(i)}

    rows = make_rows(tmp_path, 12, change=none)
    shard(rows, tmp_path / "whole", per_shard=5, max_bad="20")
    for number in range(2):
        part(rows, tmp_path / "out", f"{number}/2")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_inputs_may_lie_elsewhere_on_another_host(corpus, tmp_path, whole) -> None:
    part(corpus, tmp_path / "out", "0/2")
    shutil.move(corpus, tmp_path / "elsewhere")
    part(tmp_path / "elsewhere", tmp_path / "out", "1/2")
    assert tree(tmp_path / "out") == whole


def test_units_are_those_of_the_plan(corpus) -> None:
    from vlcli.records.sources import sources

    source = PartedInput([str(corpus)], Reading())
    source.count()
    assert [counted.unit for counted in source.units] == plan_units(sources([str(corpus)]))

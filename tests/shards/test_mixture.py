"""What --data means: paths, weights behind colons, and several sources behind commas."""

from __future__ import annotations

from pathlib import Path

import pytest
from shard_cases import make_rows, shard

from vlcli.errors import InputError, UsageError
from vlcli.shards.mixture import load_mixture, parse_sources
from vlcli.shards.pairs import load_pairs


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (["a"], [("a", None)]),
        (["a", "b:c"], [("a", None), ("b:c", None)]),
        (["a:0.8,b:0.2"], [("a", 0.8), ("b", 0.2)]),
        (["a:3", "b:.5"], [("a", 3), ("b", 0.5)]),
        (["host:dir/a:1e-2,b,c:2"], [("host:dir/a", 0.01), ("b,c", 2)]),
        (["a,b"], [("a,b", None)]),
        (["a:1,b"], [("a:1,b", None)]),
        (["-"], [("-", None)]),
    ],
)
def test_sources(values, want, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_sources(values) == want


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("take:2", "a:1,b:2"):
        Path(name).touch()
        assert parse_sources([name]) == [(name, None)]
        assert parse_sources([f"./{name}:0.5"]) == [(f"./{name}", 0.5)] or "," in name
    Path("a:1").touch()
    assert parse_sources(["a:1:0.5"]) == [("a:1", 0.5)]


def test_weights_are_all_there_and_above_zero():
    with pytest.raises(UsageError, match="--data b: has no weight beside others"):
        parse_sources(["a:1", "b"])
    for weight in ("0", "0.0"):
        with pytest.raises(UsageError, match="above 0"):
            parse_sources([f"a:{weight}"])


def test_sources_of_different_formats_in_one_table(tmp_path: Path):
    rows = make_rows(tmp_path, 5)
    shard(rows, tmp_path / "shards", per_shard=2)
    plain = load_mixture([str(rows), str(tmp_path / "shards")])
    assert not plain.shares
    table = load_mixture([f"{tmp_path / 'shards'}:3,{rows}:1"], head=4)
    assert [(s.start, s.stop, s.weight) for s in table.shares] == [(0, 4, 3.0), (4, 8, 1.0)]
    one, other = (load_pairs([str(path)], head=4) for path in (tmp_path / "shards", rows))
    assert table.ids == [*one.ids, *other.ids]
    assert [table.image_bytes(i) for i in range(8)] == [
        t.image_bytes(i) for t in (one, other) for i in range(4)
    ]
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(UsageError, match=r"empty.jsonl: no rows"):
        load_mixture([f"{rows}:1,{empty}:1"])


def test_a_damaged_shard_is_an_error_or_passed_over_with_all_its_pairs(tmp_path: Path):
    shard(make_rows(tmp_path, 7), tmp_path / "out", per_shard=3)
    whole = load_pairs([str(tmp_path / "out")])
    tar = tmp_path / "out" / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:3072])
    with pytest.raises(InputError, match=r"00001.tar"):
        load_mixture([str(tmp_path / "out")])
    table = load_mixture([str(tmp_path / "out")], skip_damaged=True)
    assert table.ids == [*whole.ids[:3], *whole.ids[6:]]
    assert [(Path(d.file).name, d.pairs) for d in table.damaged] == [("00001.tar", 3)]
    assert "00001.tar" in table.damaged[0].cause

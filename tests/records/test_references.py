from __future__ import annotations

import os

import polars as pl
import pytest

from vlcli.records.references import Relocator, anchor, is_relative, is_url, split_container


def test_what_is_relative():
    assert [
        is_relative(r) for r in ("a.jpg", "../a.jpg", "s.tar#a", "/a", "data:x", "http://a", "s3://a/b")
    ] == ([True] * 3 + [False] * 4)
    assert is_url("https://e.example/a.jpg")
    assert not is_url("c:a.jpg")


def test_anchored_references_and_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    references = ["i/a.jpg", "b.parquet#3", "s.tar#x/y.jpg", None, "/abs.jpg", "http://e.example/"]
    there = anchor(pl.Series(references), "in")
    assert there.to_list() == ["in/i/a.jpg", "in/b.parquet#3", "in/s.tar#x/y.jpg", *references[3:]]
    assert Relocator("in").all(there, "in").to_list() == references
    assert Relocator("out/deep").all(there, "in")[:3].to_list() == [f"../../in/{r}" for r in references[:3]]
    assert Relocator(None).all(there, "in")[:3].to_list() == [f"{tmp_path}/in/{r}" for r in references[:3]]
    for start in ("in", "out/deep", None):  # a column moves as its references do one by one
        one_by_one = [None if r is None else Relocator(start)(r) for r in there]
        assert Relocator(start).all(there, "in").to_list() == one_by_one


def test_what_was_relative_in_an_absolute_folder_is_relative_again(tmp_path):
    folder = str(tmp_path / "in")
    there = anchor(pl.Series(["a.jpg", "/elsewhere/b.jpg"]), folder)
    assert Relocator(tmp_path).all(there, folder).to_list() == ["in/a.jpg", "/elsewhere/b.jpg"]


def test_relative_references_hold_through_symbolic_links(tmp_path, monkeypatch):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jpg").write_bytes(b"")
    os.symlink(tmp_path / "real" / "deep", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    moved = Relocator("link")("x/a.jpg")
    assert os.path.exists(os.path.join("link", moved))
    # …and what starts behind a link and climbs out of it
    os.symlink(tmp_path / "x", tmp_path / "real" / "deep" / "up")
    assert os.path.exists(Relocator(None)("link/../../x/a.jpg"))


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("a.parquet#3", ("a.parquet", "3")),
        ("d#1/a.parquet#12", ("d#1/a.parquet", "12")),
        ("s.tar#k/0#1.jpg", None),  # the last "#" splits: no such tar, no such file
        ("s.tar#k.jpg", ("s.tar", "k.jpg")),
        ("plain.jpg", None),
        ("a.parquet#x", None),
        ("#3", None),
        ("a.parquet#", None),
    ],
)
def test_split_at_the_last_hash(reference, parts):
    assert split_container(reference) == parts


def test_a_plain_file_may_have_a_hash_in_its_name(tmp_path):
    (tmp_path / "no#3").write_bytes(b"")
    (tmp_path / "no").write_bytes(b"")
    assert split_container(str(tmp_path / "no#3")) is None
    assert split_container(str(tmp_path / "no#4")) == (str(tmp_path / "no"), "4")

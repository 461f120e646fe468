"""load_pairs: the same table from shards, from rows, and from other tools' tars."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import threading
from pathlib import Path

import polars as pl
import pytest
import webdataset
from shard_cases import make_rows, picture, shard

from vlcli.errors import InputError, UsageError
from vlcli.shards import pairs
from vlcli.shards.pairs import load_pairs
from vlcli.shards.pixels import LocatedImages


def same(a, b) -> None:
    assert (a.ids, a.texts, a.candidates, a.groups) == (b.ids, b.texts, b.candidates, b.groups)
    assert [a.image_bytes(i) for i in range(len(a))] == [b.image_bytes(i) for i in range(len(b))]


def test_shards_and_rows_give_one_table(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 7)
    shard(source, tmp_path / "out", per_shard=3)
    rows, shards = load_pairs([str(source)]), load_pairs([str(tmp_path / "out")])
    assert len(rows) == 7
    same(rows, shards)
    assert rows.texts[4] == ["第4张图", "图4"]
    assert rows.groups[:4] == ["f0", "f0", "f1", "f1"]
    assert rows.image_ids[0] == "pictures/0.img"  # a reference, where nothing better is at hand
    assert shards.image_ids[0] == hashlib.sha256(picture(0)).hexdigest()
    assert load_pairs([str(tmp_path / "out" / "00001.tar")]).ids == rows.ids[3:6]


def test_failed_rows_are_no_pairs(tmp_path: Path) -> None:
    def broken(i: int, row: dict, file: Path) -> dict:
        if i in (0, 3):
            file.write_bytes(b"no image")
        return row

    shard(make_rows(tmp_path, 5, change=broken), tmp_path / "out", per_shard=3, max_bad="2")
    table = load_pairs([str(tmp_path / "out")])
    assert [t[0] for t in table.texts] == ["第1张图", "第2张图", "第4张图"]
    assert [table.image_bytes(i) for i in range(3)] == [picture(i) for i in (1, 2, 4)]


def test_columns_and_head(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 5)
    shard(source, tmp_path / "out", per_shard=2)
    for path in (source, tmp_path / "out"):
        table = load_pairs([str(path)], columns=["score"], optional=["label"], head=3, group=None)
        assert table.frame["score"].to_list() == [0.0, 0.25, 0.5]
        assert table.frame["label"].to_list() == [None] * 3
        assert table.groups == [None] * 3
        assert table.image_bytes(2) == picture(2)
        with pytest.raises(IndexError):
            table.image_bytes(3)
        with pytest.raises(UsageError, match="no row has a column 'label'"):
            load_pairs([str(path)], columns=["label"])


def test_images_inside_parquet_and_data_urls(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"image": [{"bytes": picture(i), "path": None} for i in range(3)], "text": ["甲", "乙", "丙"]}
    )
    frame.write_parquet(tmp_path / "rows.parquet")
    url = "data:image/png;base64," + base64.b64encode(picture(9)).decode()
    (tmp_path / "more.jsonl").write_text(json.dumps({"image": url, "text": "丁"}) + "\n")
    table = load_pairs([str(tmp_path / "rows.parquet"), str(tmp_path / "more.jsonl")])
    assert [table.image_bytes(i) for i in (3, 1, 0, 2)] == [picture(i) for i in (9, 1, 0, 2)]
    assert table.image_ids[1] == hashlib.sha256(picture(1)).hexdigest()


def test_embedded_arrow(tmp_path: Path) -> None:
    frame = pl.DataFrame({"image": [{"bytes": picture(i)} for i in range(2)], "text": ["甲", "乙"]})
    frame.write_ipc_stream(tmp_path / "rows.arrow", compat_level=pl.CompatLevel.oldest())
    table = load_pairs([str(tmp_path / "rows.arrow")])
    assert [table.image_bytes(i) for i in (1, 0)] == [picture(1), picture(0)]


def test_tars_of_other_tools(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as writer:
        for i in range(2):
            writer.write({"__key__": f"k{i}", "jpg": picture(i, "JPEG"), "txt": f"图{i}\n".encode()})
    table = load_pairs([str(tmp_path / "x.tar")])
    assert (table.ids, table.texts) == (["k0", "k1"], [["图0"], ["图1"]])
    assert table.image_bytes(1) == picture(1, "JPEG")


def test_large_shards_are_looked_through_by_several_processes(tmp_path: Path, monkeypatch) -> None:
    shard(make_rows(tmp_path, 9), tmp_path / "out", per_shard=2)
    here = load_pairs([str(tmp_path / "out")], columns=["score"])
    monkeypatch.setattr(pairs, "LARGE", 0)
    there = load_pairs([str(tmp_path / "out")], columns=["score"], jobs=2)
    same(here, there)
    assert there.frame.equals(here.frame)
    (tmp_path / "out" / "00003.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"00003.tar"):
        load_pairs([str(tmp_path / "out")], jobs=2)
    less = load_pairs([str(tmp_path / "out")], jobs=2, skip_damaged=True)
    assert less.ids == [*here.ids[:6], *here.ids[8:]]
    assert [damaged.pairs for damaged in less.damaged] == [2]


def test_split_hash_names_the_data(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 3)
    one, two = load_pairs([str(source)]), load_pairs([str(source)])
    assert one.split_hash == two.split_hash
    assert load_pairs([str(source)], head=2).split_hash != one.split_hash


def test_pictures_of_the_same_names_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 3)
    one = load_pairs([str(source)])
    of_names = one.pictures_hash
    assert one.picture_key(1) == hashlib.sha256(picture(1)).hexdigest()
    shard(source, tmp_path / "out")
    packed = load_pairs([str(tmp_path / "out")])  # whose image_ids are hashes already
    assert packed.pictures_hash is None
    assert packed.picture_key(1) == packed.image_ids[1] == one.picture_key(1)
    (tmp_path / "pictures" / "1.img").write_bytes(picture(2))
    two = load_pairs([str(source)])
    assert two.split_hash == one.split_hash
    assert two.pictures_hash != of_names


def test_labelled_pictures_of_a_tar_need_no_text(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as writer:
        for i in range(2):
            said = json.dumps({"label": i}).encode()
            writer.write({"__key__": f"k{i}", "jpg": picture(i, "JPEG"), "json": said})
    table = load_pairs([str(tmp_path / "x.tar")], columns=["label"], need_text=False)
    assert (table.frame["label"].to_list(), table.texts[1]) == ([0, 1], [])
    with pytest.raises(InputError, match="sample k0 has no text"):
        load_pairs([str(tmp_path / "x.tar")])


def test_bad_input(tmp_path: Path) -> None:
    shard(make_rows(tmp_path, 4), tmp_path / "out", per_shard=2)
    tar = tmp_path / "out" / "00001.tar"
    os.truncate(tar, 3072)
    with pytest.raises(InputError, match=r"00001.tar"):
        load_pairs([str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"rows.jsonl:2: no text"):
        load_pairs(
            [str(make_rows(tmp_path, 3, change=lambda i, row, file: {**row, "text": ""} if i == 1 else row))]
        )
    with pytest.raises(InputError, match=r"rows.jsonl:1: no image"):
        load_pairs([str(make_rows(tmp_path, 1, change=lambda i, row, file: {"text": "x"}))])
    textless = make_rows(tmp_path, 1, change=lambda i, row, file: {"image": row["image"], "label": 3})
    assert load_pairs([str(textless)], columns=["label"], need_text=False).frame["label"].to_list() == [3]


def test_many_threads(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 20)
    shard(source, tmp_path / "out", per_shard=4)
    table = load_pairs([str(tmp_path / "out")])
    wrong: list[int] = []

    def read(seed: int) -> None:
        for i in range(200):
            row = (i * 7 + seed) % 20
            if table.image_bytes(row) != picture(row):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(s,)) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["shards", "references", "data"])
def test_a_worker_process_reads_the_same_pixels(tmp_path: Path, kind: str) -> None:
    """A table travels by pickle to a loader's workers, read or not before."""
    rows = make_rows(tmp_path, 3)
    if kind == "shards":
        shard(rows, tmp_path / "out")
        source = tmp_path / "out"
    elif kind == "references":
        source = rows
    else:
        source = tmp_path / "data.jsonl"
        url = "data:image/png;base64," + base64.b64encode(picture(1)).decode()
        source.write_text("".join(json.dumps({"image": url, "text": str(i)}) + "\n" for i in range(3)))
    table = load_pairs([str(source)])
    want = [table.image_bytes(i) for i in range(3)]
    again = pickle.loads(pickle.dumps(table))
    assert [again.image_bytes(i) for i in range(3)] == want
    assert [table.image_bytes(i) for i in range(3)] == want
    places = pickle.loads(pickle.dumps([table.locate(i) for i in range(3)]))
    reader = pickle.loads(pickle.dumps(LocatedImages()))
    assert [reader.read(place) for place in places] == want


def test_a_tar_that_is_cut_after_it_was_indexed(tmp_path: Path) -> None:
    shard(make_rows(tmp_path, 4), tmp_path / "out", per_shard=2)
    table, reader = load_pairs([str(tmp_path / "out")]), LocatedImages()
    reader.FILES = 1
    assert reader.read(table.locate(3)) == picture(3)
    os.truncate(tmp_path / "out" / "00001.tar", 100)
    (tmp_path / "out" / "00000.tar").unlink()
    with pytest.raises(InputError, match=r"00001.tar: changed while it was read"):
        reader.read(table.locate(2))
    with pytest.raises(FileNotFoundError, match=r"00000.tar"):
        reader.read(table.locate(0))


def test_chosen_rows_are_a_table_of_their_own(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 5)
    whole = load_pairs([str(source)], columns=["score"])
    some = whole.chosen([3, 1], [["c"], []])
    assert (some.ids, some.image_ids) == (
        [whole.ids[3], whole.ids[1]],
        [whole.image_ids[3], whole.image_ids[1]],
    )
    assert list(some.texts) == [["c"], []]
    assert some.locate(0) == whole.locate(3)
    assert some.frame["score"].to_list() == [0.75, 0.25]
    assert [some.image_bytes(i) for i in range(2)] == [picture(3), picture(1)]
    assert some.split_hash != whole.split_hash
    with pytest.raises(IndexError):
        some.image_bytes(2)

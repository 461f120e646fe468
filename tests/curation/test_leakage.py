"""Downstream pairs, images and texts are kept out: by bytes, by identity, by URL."""

from __future__ import annotations

import base64
import hashlib
import json

import polars as pl
import pytest

from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.plan import resolve
from vlcli.errors import InputError, UsageError


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def kept(tmp_path, source, **rules):
    plan = resolve(None, {name.replace("_", "-"): value for name, value in rules.items()})
    out = tmp_path / "out.jsonl"
    report = filter_pairs(plan, Source([source]), Target(str(out), force=True))
    assert report["rows"]["in"] == report["rows"]["kept"] + report["rows"]["dropped"]
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [(row["n"], row.get("text")) for row in rows]


@pytest.fixture
def sets(tmp_path):
    """An evaluation set of pictures a and b under other names than in training, where c has as many bytes as a."""
    pictures = {"a": b"one picture", "b": b"another", "c": b"one picturf", "d": b"something else"}
    for folder in ("train", "eval"):
        (tmp_path / folder).mkdir()
    for name, data in pictures.items():
        (tmp_path / "train" / f"{name}.png").write_bytes(data)
    (tmp_path / "eval" / "c.png").write_bytes(pictures["a"])
    (tmp_path / "eval" / "x.png").write_bytes(pictures["b"])
    evaluation = write(
        tmp_path / "eval" / "eval.jsonl",
        [
            {"image": "c.png", "text": ["一只狗", " 猫 "]},
            {"image": "x.png", "title": "鸟", "content": "caf\u00e9"},
            {"image": "https://example.org/1.jpg", "text": "鱼"},
            {"image": "gone.png", "image_id": "coco-7", "text": "马"},
        ],
    )
    train = write(
        tmp_path / "train" / "train.jsonl",
        [
            {"n": 0, "image": "a.png", "text": "一只狗"},  # the pair
            {"n": 1, "image": "a.png", "text": ["一只猫", "猫", "狗"]},  # one text of three
            {"n": 2, "image": "c.png", "text": "一只狗"},  # its name, its size, its text, and another picture
            {"n": 3, "image": "b.png", "text": "一只狗"},  # image and text, of two pairs
            {"n": 4, "image": "b.png", "text": "cafe\u0301 "},
            {"n": 5, "image": "https://example.org/1.jpg", "text": "鱼"},
            {"n": 6, "image": "https://example.org/2.jpg", "text": "鱼"},
            {"n": 7, "image": "gone.jpg", "image_id": "coco-7", "text": "马"},
            {"n": 8, "image": "gone.jpg", "text": "马"},
            {
                "n": 9,
                "image": "data:image/png;base64," + base64.b64encode(pictures["b"]).decode(),
                "text": "鸟",
            },
            {"n": 10, "image_id": hashlib.sha256(pictures["a"]).hexdigest(), "text": "猫"},
            {"n": 11, "image": "a.png"},
            {"n": 12, "image": "d.png", "text": "别的"},
        ],
    )
    return train, evaluation


def test_pairs(tmp_path, sets):
    train, evaluation = sets
    left = dict(kept(tmp_path, train, against=evaluation))
    assert sorted(left) == [1, 2, 3, 6, 8, 11, 12]
    assert left[1] == ["一只猫", "狗"]


def test_images(tmp_path, sets):
    train, evaluation = sets
    assert [n for n, _ in kept(tmp_path, train, against_images=evaluation)] == [2, 6, 8, 12]


def test_texts(tmp_path, sets):
    train, evaluation = sets
    left = dict(kept(tmp_path, train, against_texts=evaluation))
    assert sorted(left) == [1, 11, 12]
    assert left[1] == ["一只猫", "狗"]


def test_pictures_inside_parquet_on_both_sides(tmp_path):
    for name, pictures in (("eval", [b"a", b"b"]), ("train", [b"c", b"a", b"b"])):
        images = [{"bytes": data, "path": None} for data in pictures]
        frame = pl.DataFrame({"n": range(len(images)), "image": images, "text": ["狗"] * len(images)})
        if name == "train":  # an identity of its own does not hide the bytes
            frame = frame.with_columns(image_id=pl.format("given {}", "n"))
        frame.write_parquet(tmp_path / f"{name}.parquet")
    train, evaluation = str(tmp_path / "train.parquet"), str(tmp_path / "eval.parquet")
    assert kept(tmp_path, train, against=evaluation) == [(0, "狗")]
    assert kept(tmp_path, train, against_images=f"{evaluation},{evaluation}") == [(0, "狗")]


def test_an_evaluation_image_that_cannot_be_compared_is_an_error(tmp_path):
    row = {"n": 1, "image": "gone.png", "text": "狗"}
    path = write(tmp_path / "eval.jsonl", [row])
    for rule in ("against", "against_images"):
        with pytest.raises(InputError, match=r"eval.jsonl:1: an image cannot be compared.*image_id"):
            kept(tmp_path, path, **{rule: path})
    assert kept(tmp_path, path, against_texts=path) == []
    for wrong in ("nowhere.jsonl", "-", ","):
        with pytest.raises(UsageError, match="--against"):
            resolve(None, {"against": wrong})


def test_the_files_are_in_the_lineage_by_their_bytes(tmp_path):
    path = write(tmp_path / "eval.jsonl", [{"text": "狗"}])
    first = resolve(None, {"against": path}).fingerprint()["against"]
    assert str(tmp_path) not in first
    write(tmp_path / "eval.jsonl", [{"text": "猫"}])
    assert resolve(None, {"against": path}).fingerprint()["against"] != first

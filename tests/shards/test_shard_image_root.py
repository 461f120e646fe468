"""`--image-root` is applied once, by the reader of rows, whoever opens the images."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlcli.cli import app
from vlcli.shards.pairs import load_pairs


@pytest.fixture
def rows(tmp_path, monkeypatch):
    for folder in ("data", "data/here", "pictures"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures" / "a.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "data" / "here" / "a.png")
    (tmp_path / "data" / "rooted.jsonl").write_text(json.dumps({"image": "a.png", "text": "红"}) + "\n")
    (tmp_path / "data" / "beside.jsonl").write_text(json.dumps({"image": "here/a.png", "text": "蓝"}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pairs_with_a_relative_root_and_without(rows):
    rooted = load_pairs(["data/rooted.jsonl"], image_root=Path("pictures"))
    assert rooted.image_bytes(0) == (rows / "pictures" / "a.png").read_bytes()
    beside = load_pairs(["data/beside.jsonl"])
    assert beside.image_bytes(0) == (rows / "data" / "here" / "a.png").read_bytes()


def test_shards_with_a_relative_root_and_without(rows):
    app(["shard", "-q", "data/rooted.jsonl", "--image-root", "pictures", "-o", "one"], standalone_mode=False)
    app(["shard", "-q", "data/beside.jsonl", "-o", "two"], standalone_mode=False)
    for shards, source in (("one", "pictures/a.png"), ("two", "data/here/a.png")):
        with (
            Image.open(io.BytesIO(load_pairs([shards]).image_bytes(0))) as found,
            Image.open(source) as given,
        ):
            difference = np.subtract(found.convert("RGB").getpixel((4, 4)), given.getpixel((4, 4)))
            assert np.abs(difference).max() < 10  # JPEG

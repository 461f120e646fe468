"""Other people's readers on the shards that we write."""

from __future__ import annotations

import functools
import importlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
import torch
import webdataset
from PIL import Image

from vlcli.shards.layout import end_archive, write_member
from vlcli.shards.whole import iterate

ROWS = 7


def picture(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40 + i, 30), (i * 30, 255 - i * 30, 99)).save(buffer, "JPEG")
    return buffer.getvalue()


def vlcli(*arguments: str) -> None:
    from vlcli.cli import app

    app(list(arguments), prog_name="vlcli", standalone_mode=False)


def write(folder: Path, n: int, output: Path, per_shard: str) -> None:
    frame = pl.DataFrame(
        {
            "image": [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(n)],
            "text": [f"第{i}张图片" for i in range(n)],
            "translated": [f"第{i} picture" for i in range(n)],
            "label": [i % 3 for i in range(n)],
            "artist": ["张"] * n,
        }
    )
    frame.write_parquet(folder / "rows.parquet")
    vlcli("shard", str(folder / "rows.parquet"), "-o", str(output), "--per-shard", per_shard, "-q")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    write(folder, ROWS, folder / "out", "3")
    return folder / "out"


def test_our_tar_is_the_one_that_webdataset_writes(tmp_path: Path) -> None:
    """Byte for byte, empty members and sizes around a block included."""
    theirs, ours, size = io.BytesIO(), io.BytesIO(), 0
    with webdataset.TarWriter(theirs, mtime=0, encoder=False) as writer:
        for i, length in enumerate((0, 1, 511, 512, 513, 10_240)):
            sample = {"jpg": b"\xff" * length, "json": b"{}", "txt": "狗".encode()}
            writer.write({"__key__": f"{i:09d}", **sample})
            for extension in sorted(sample):
                size += write_member(ours, f"{i:09d}.{extension}", sample[extension])
    end_archive(ours, size)
    assert ours.getvalue() == theirs.getvalue()


def test_webdataset(shards: Path) -> None:
    urls = [str(p) for p in sorted(shards.glob("*.tar"))]
    seen = list(webdataset.WebDataset(urls, shardshuffle=False, handler=webdataset.reraise_exception))
    assert [s["__key__"] for s in seen] == [f"0000{k}" for k in ("00", "01", "02", "10", "11", "12", "20")]
    assert [s["txt"].decode() for s in seen] == [f"第{i}张图片" for i in range(ROWS)]
    assert [s["jpg"] for s in seen] == [picture(i) for i in range(ROWS)]
    assert all(orjson.loads(s["json"])["artist"] == "张" for s in seen)
    ours = [(s.key, s.members) for path in urls for s in iterate(path)]
    assert ours == [(s["__key__"], {e: s[e] for e in ("jpg", "json", "txt")}) for s in seen]


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """open_clip's training data pipeline. It is written for webdataset ≤ 0.2.86, whose expander sends no mark
    between shards; nothing else of it is touched.
    """
    data = importlib.import_module("open_clip_train.data")
    monkeypatch.setattr(data, "tar_file_expander", functools.partial(data.tar_file_expander, eof_value=None))
    return data


def open_clip_train_set(data: ModuleType, shards: str, *, workers: int, batch_size: int) -> Any:
    """What its `main` makes of `--train-data SHARDS` without `--train-num-samples`."""
    arguments = SimpleNamespace(
        train_data=shards,
        val_data=None,
        dataset_type="webdataset",
        imagenet_val=None,
        imagenet_v2=None,
        train_num_samples=None,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=batch_size,
        workers=workers,
        world_size=1,
    )
    transforms = (lambda image: torch.tensor(np.asarray(image)),) * 2
    found = data.get_data(arguments, transforms, tokenizer=lambda text: [text])
    return found["train"]


@pytest.mark.parametrize("workers", [0, 2])
def test_open_clip_trains_on_every_pair_once(open_clip: ModuleType, tmp_path: Path, workers: int) -> None:
    """sizes.json alone tells it how many there are; two epochs, each with every pair once, both sides equal."""
    folder = tmp_path / "out"
    write(tmp_path, 8, folder, "2")
    assert open_clip.get_dataset_size(str(folder / "{00000..00003}.tar")) == (8, 4)
    train = open_clip_train_set(open_clip, str(folder / "{00000..00003}.tar"), workers=workers, batch_size=1)
    assert (train.dataloader.num_samples, train.dataloader.num_batches) == (8, 8)
    want = {f"第{i}张图片": np.asarray(Image.open(io.BytesIO(picture(i)))) for i in range(8)}
    orders = []
    for epoch in range(2):
        train.set_epoch(epoch)
        seen = [
            (text, image)
            for images, texts in train.dataloader
            for image, text in zip(images, texts, strict=True)
        ]
        assert sorted(text for text, _ in seen) == sorted(want)
        assert all(np.array_equal(image.numpy(), want[text]) for text, image in seen)
        orders.append([text for text, _ in seen])
    assert orders[0] != orders[1]
    # The bound that `shard` prints: at least as many shards as workers.
    with pytest.raises(AssertionError, match="number of shards must be >= total workers"):
        open_clip_train_set(open_clip, str(folder / "{00000..00003}.tar"), workers=5, batch_size=1)


def test_open_clip_evaluates_on_every_pair(open_clip: ModuleType, shards: Path) -> None:
    arguments = SimpleNamespace(
        val_data=str(shards / "{00000..00002}.tar"), val_num_samples=ROWS, batch_size=4, workers=0, seed=0
    )
    found = open_clip.get_wds_dataset(
        arguments, lambda image: torch.tensor(image.size), is_train=False, tokenizer=lambda text: [text]
    )
    seen = [
        (text, tuple(size.tolist()))
        for sizes, texts in found.dataloader
        for size, text in zip(sizes, texts, strict=True)
    ]
    assert seen == [(f"第{i}张图片", (40 + i, 30)) for i in range(ROWS)]


def test_captions_by_json_key(shards: Path) -> None:
    """Newer open_clip draws the caption from string fields of the json member (`--json-text-key a;b`): the
    caption is there in that form, and so is every column of strings that was kept.
    """
    for sample in webdataset.WebDataset(str(shards / "00000.tar"), shardshuffle=False):
        value = orjson.loads(sample["json"])
        assert value["caption"] == sample["txt"].decode()
        assert value["translated"] == value["caption"].replace("张图片", " picture")


ODD = [
    {},
    {"url": "https://a.example/1.jpg", "text_candidates": ["狗", "犬"], "query": "狗"},
    {"tags": ["a"]},
]


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    """All samples, whatever the rows after the first five have that those lack: it takes its types from them.

    What only later rows have is then missing from its json, and nothing fails.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = importlib.import_module("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    plain = {"translated": "x", "tags": [], "text_candidates": [], "url": None}
    lines = [{"image": f"{i}.jpg", "text": f"第{i}张图片", **plain} | ODD[i // 6 % 3] for i in range(18)]
    for i in range(18):
        (tmp_path / f"{i}.jpg").write_bytes(picture(i % 9))
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(x) + b"\n" for x in lines))
    vlcli("shard", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out"), "--per-shard", "8", "-q")
    rows = list(
        datasets.load_dataset(
            "webdataset",
            data_files={"train": str(tmp_path / "out" / "*.tar")},
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path / "cache"),
        )
    )
    assert [r["txt"] for r in rows] == [f"第{i}张图片" for i in range(18)]
    assert [r["json"]["caption"] for r in rows] == [r["txt"] for r in rows]
    assert [r["json"]["url"] for r in rows] == [x["url"] or "" for x in lines]
    pixels = [np.asarray(Image.open(io.BytesIO(picture(i % 9)))) for i in range(18)]
    assert all(np.array_equal(np.asarray(r["jpg"]), p) for r, p in zip(rows, pixels, strict=True))


def test_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader needs no _info.json: the shards and their number of samples are the split's name, the label
    is a whole number in the json.
    """
    write(tmp_path, 6, tmp_path / "out", "3")
    reader = importlib.import_module("timm.data.readers.reader_wds")
    wds = reader.ReaderWds(
        str(tmp_path / "out"), split="{00000..00001}.tar|6", input_key="jpg", target_key="label"
    )
    assert len(wds) == 6
    assert [(image.size, target) for image, target in wds] == [((40 + i, 30), i % 3) for i in range(6)]


def test_gnu_tar_and_tarfile(shards: Path) -> None:
    for path in sorted(shards.glob("*.tar")):
        listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        with tarfile.open(path) as tar:
            assert listed.stdout.split() == tar.getnames()
        assert listed.stderr == ""
        assert path.stat().st_size % 10_240 == 0


def test_sizes_and_stats_are_what_resharders_read(shards: Path) -> None:
    sizes = json.loads((shards / "sizes.json").read_bytes())
    assert sizes == {"00000.tar": 3, "00001.tar": 3, "00002.tar": 1}
    for name, count in sizes.items():
        stats = json.loads((shards / name.replace(".tar", "_stats.json")).read_bytes())
        assert (stats["successes"], stats["count"], stats["failed_to_download"]) == (count, count, 0)
        frame = pl.read_parquet(shards / name.replace(".tar", ".parquet"))
        assert frame["status"].to_list() == ["success"] * count
        assert frame["uid"].str.contains(r"^[0-9a-f]{32}$").all()
    assert pl.read_parquet(shards / "*.parquet").height == ROWS  # one schema in all of them

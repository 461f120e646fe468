"""Other people's readers on the shards that we write."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import orjson
import polars as pl
import pytest
import webdataset
from PIL import Image

from vlcli.shards.layout import end_archive, write_member
from vlcli.shards.reader import iterate

ROWS = 7


def picture(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40 + i, 30), (i * 30, 255 - i * 30, 99)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vlcli.cli import app

    folder = tmp_path_factory.mktemp("contract")
    frame = pl.DataFrame(
        {
            "image": [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(ROWS)],
            "text": [f"第{i}张图片" for i in range(ROWS)],
            "artist": ["张"] * ROWS,
        }
    )
    frame.write_parquet(folder / "rows.parquet")
    arguments = ["shard", str(folder / "rows.parquet"), "-o", str(folder / "out"), "--per-shard", "3", "-q"]
    app(arguments, prog_name="vlcli", standalone_mode=False)
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


def open_clip_dataset(shards: Path, workers: int):
    arguments = SimpleNamespace(
        train_data=str(shards / "{00000..00002}.tar"),
        train_num_samples=None,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=1,
        workers=workers,
        world_size=1,
    )
    data = importlib.import_module("open_clip_train.data")
    assert data.get_dataset_size(arguments.train_data) == (ROWS, 3)
    return data.get_wds_dataset(
        arguments, preprocess_img=lambda image: image.size, is_train=True, tokenizer=lambda text: [text]
    )


def test_open_clip(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its training pipeline takes the number of samples from sizes.json and finds every pair."""
    importlib.import_module("torchvision.datasets")
    if importlib.util.find_spec("pandas") is None:
        # Imported there for csv files alone, and no dependency of the package.
        monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    data = importlib.import_module("open_clip_train.data")
    # It is written for webdataset ≤ 0.2.86, whose expander sends no mark between shards.
    quiet = functools.partial(data.tar_file_expander, eof_value=None)
    monkeypatch.setattr(data, "tar_file_expander", quiet)
    found = open_clip_dataset(shards, workers=0)
    assert found.dataloader.num_samples == ROWS
    seen = {text: size for sizes, texts in found.dataloader for size, text in zip(sizes, texts, strict=True)}
    assert seen == {f"第{i}张图片": [40 + i, 30] for i in range(ROWS)}
    # The bound that `shard` prints: at least as many shards as workers.
    with pytest.raises(AssertionError, match="number of shards must be >= total workers"):
        open_clip_dataset(shards, workers=4)


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

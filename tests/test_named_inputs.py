"""What the model commands read through the library: the same words for the same slip, without loading a model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.figures.request import Request
from vlcli.shards.pairs import load_pairs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("r.png")
    row = json.dumps({"id": "a", "image": "r.png", "text": "红色"}).encode()
    Path("rows.jsonl").write_bytes(row + b"\n")
    Path("cut.gz").write_bytes(gzip.compress(row * 50)[:-7])
    Path("cut.jsonl").write_bytes(row + b"\n" + row[:-3])
    Path("nul.jsonl").write_bytes(row.replace(b"a", b"\0", 1) + b"\n")
    Path("odd.txt").write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n" + row.replace(b'"a"', b'"b"'))
    Path("none.jsonl").write_bytes(b'{"id": "a", "text": "x"}\n')
    pictures = [{"bytes": Path("r.png").read_bytes(), "path": None}]
    pq.write_table(pa.table({"image": pictures, "text": ["红"]}), "one.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("gone.jsonl", UsageError, "gone.jsonl: no such file"),
        ("cut.gz", InputError, "cut.gz: compressed data are damaged or cut"),
        ("cut.jsonl", InputError, "cut.jsonl:2: the last line is cut"),
        ("nul.jsonl", InputError, "nul.jsonl:1: not JSON: a NUL byte"),
        ("none.jsonl", InputError, "none.jsonl:1: no image"),
        ("r.png", InputError, "r.png:1: not UTF-8"),
    ],
)
def test_pairs_that_cannot_be_read(path: str, error: type[VlcliError], said: str) -> None:
    with pytest.raises(error) as raised:
        load_pairs([path])
    assert type(raised.value) is error
    assert str(raised.value).startswith(said)


def test_pairs_in_odd_clothes() -> None:
    table = load_pairs(["odd.txt", "rows.jsonl", "one.parquet"])
    assert [*table.ids[:3], len(table)] == ["a", "b", "a", 4]
    assert {table.image_bytes(i) for i in range(4)} == {Path("r.png").read_bytes()}


@pytest.mark.parametrize(
    ("image", "code", "said"),
    [
        ("gone.png", 2, "gone.png: no such file"),
        ("empty", 2, "empty: 0 pictures: a figure has 1 to"),
        ("gone.parquet#0", 2, "gone.parquet: no such file"),
        ("one.parquet#1", 2, "one.parquet#1: no such row: the file has 1"),
        (
            "one.parquet",
            2,
            "one.parquet: a Parquet file, not an image; name one of its rows: one.parquet#ROW",
        ),
        ("https://example.org/a.png", 3, "https://example.org/a.png: URLs are never fetched"),
    ],
)
def test_a_picture_that_the_command_line_names(image: str, code: int, said: str) -> None:
    Path("empty").mkdir(exist_ok=True)
    with pytest.raises(VlcliError) as raised:
        Request.read([image], ["红"])
    assert raised.value.exit_code == code
    assert str(raised.value).startswith(said)
    assert len(Request.read(["r.png", "one.parquet#0"], ["红"], image_root=Path.cwd()).sources) == 2

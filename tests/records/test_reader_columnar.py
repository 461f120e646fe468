"""Parquet and Arrow in: pixels stay where they are, damage is named."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlcli.errors import InputError, UsageError
from vlcli.records import embedded
from vlcli.records.bad import BadRows
from vlcli.records.embedded import ParquetImages
from vlcli.records.reader import read

CORPUS = "examples/emoji/raw.parquet"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(path: Path, columns: dict, schema: pa.Schema | None = None, **options) -> str:
    pq.write_table(pa.table(columns, schema=schema), path, **options)
    return str(path)


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def rows_of(*inputs: str, **options) -> list[dict]:
    return [row for batch in read(list(inputs), **options) for row in batch.rows()]


def test_the_corpus_by_reference_and_with_its_pixels():
    renames = {"name": "text", "keywords": "text_candidates"}
    batches = list(read([CORPUS], renames=renames))
    assert sum(map(len, batches)) == 9958
    assert [line for b in batches for line in b.frame["line"]] == list(range(9958))
    assert all(b.frame["image_bytes"].null_count() == len(b) for b in batches)
    last = batches[-1]
    assert last.frame["image"][-1] == f"{CORPUS}#9957"
    truth = pq.read_table(CORPUS, columns=["image", "name", "keywords", "family"])
    assert last.column("family")[-1] == truth["family"][9957].as_py()
    (head,) = read([CORPUS], renames=renames, image_bytes=True, head=5)
    assert head.frame["image_bytes"].to_list() == [truth["image"][i]["bytes"].as_py() for i in range(5)]
    assert head.frame["image"].to_list() == [f"{CORPUS}#{i}" for i in range(5)]
    assert head.frame["text"].to_list() == [[truth["name"][i].as_py()] for i in range(5)]
    assert head.frame["text_candidates"].to_list() == truth["keywords"][:5].to_pylist()
    assert max(map(len, read([CORPUS], image_bytes=True, head=600))) <= 256


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_with_and_without_bytes_in_one_row_group(tmp_path, statistics):
    images = [{"bytes": b"one", "path": "1.jpg"}, {"bytes": None, "path": "2.jpg"}, None, {"bytes": b"four"}]
    schema = pa.schema([("image", IMAGE), ("text", pa.string())])
    path = parquet(
        tmp_path / "a.parquet",
        {"image": images * 2, "text": list("abcdefgh")},
        schema,
        row_group_size=3,
        write_statistics=statistics,
    )
    expected = [
        f"{path}#0",
        str(tmp_path / "2.jpg"),
        None,
        f"{path}#3",
        f"{path}#4",
        str(tmp_path / "2.jpg"),
        None,
    ]
    expected.append(f"{path}#7")
    for image_bytes in (False, True):
        found = [r for b in read([path], image_bytes=image_bytes) for r in b.frame["image"]]
        assert found == expected
    assert [r["text"] for r in rows_of(path)] == list("abcdefgh")


def test_an_image_column_alone_still_has_rows(tmp_path):
    schema = pa.schema([("image", pa.binary())])
    path = parquet(tmp_path / "a.parquet", {"image": [b"x", None]}, schema)
    assert [r for b in read([path]) for r in b.frame["image"]] == [f"{path}#0", None]
    schema = pa.schema([("image", IMAGE)])
    path = parquet(tmp_path / "b.parquet", {"image": [{"bytes": b"x", "path": "p"}] * 3}, schema)
    assert [r["image"] for r in rows_of(path)] == [f"{path}#{i}" for i in range(3)]


def test_a_second_image_column_cannot_be_meant(tmp_path):
    schema = pa.schema([("image", IMAGE), ("mask", IMAGE)])
    path = parquet(tmp_path / "a.parquet", {"image": [{"bytes": b"i"}], "mask": [{"bytes": b"m"}]}, schema)
    assert rows_of(path)[0]["image"] == f"{path}#0"
    with pytest.raises(UsageError, match="several columns hold images"):
        rows_of(path, renames={"image": "old", "mask": "image"})
    schema = pa.schema([("jpg", pa.binary()), ("text", pa.string())])
    path = parquet(tmp_path / "b.parquet", {"jpg": [b"j"], "text": ["t"]}, schema)
    assert rows_of(path, renames={"jpg": "image"})[0]["image"] == f"{path}#0"
    assert ParquetImages(path).get(0) == b"j"


def test_types_that_fit_and_types_that_do_not(tmp_path):
    columns = {
        "text": pa.array(["a", None, "b"]).dictionary_encode(),
        "id": pa.array([1, 2, 3]),
        "width": pa.array([1.0, None, float("nan")]),
        "text_candidates": pa.array([["x"], [], None]),
        "when": pa.array([datetime.date(2026, 1, 2)] * 3),
        "vector": pa.array([[0.5, 1.0]] * 3, pa.list_(pa.float32(), 2)),
    }
    rows = rows_of(parquet(tmp_path / "a.parquet", columns))
    assert [r.get("text") for r in rows] == ["a", None, "b"]
    assert [r["id"] for r in rows] == ["1", "2", "3"]
    assert [r.get("width") for r in rows] == [1, None, None]
    assert [r.get("text_candidates") for r in rows] == [["x"], [], None]
    assert rows[0]["when"] == datetime.date(2026, 1, 2)
    assert rows[0]["vector"] == [0.5, 1.0]
    for name, values in (("text", [1]), ("id", [1.5]), ("width", ["1"]), ("query", [1]), ("image", [1])):
        path = parquet(tmp_path / "b.parquet", {name: pa.array(values)})
        with pytest.raises(InputError, match=rf"b\.parquet: column {name} is "):
            rows_of(path)


def test_bad_rows_of_a_table(tmp_path):
    columns = {
        "text": [["a"], ["b", None], ["c\0"], ["d"], ["e"]],
        "width": [1.0, 2.0, 3.0, 4.5, 5.0],
        "k": [0, 1, 2, 3, 4],
    }
    path = parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=r"a\.parquet#1: text holds null"):
        rows_of(path)
    bad = BadRows("3", None)
    batches = list(read([path], bad=bad))
    assert [b.frame["line"].to_list() for b in batches] == [[0, 4]]
    assert [r["k"] for b in batches for r in b.rows()] == [0, 4]
    assert (bad.count, bad.seen) == (3, 5)
    assert len(rows_of(path, head=2, bad=BadRows("3", None))) == 1


def test_an_arrow_stream_carries_its_pixels(tmp_path):
    schema = pa.schema([("image", IMAGE), ("text", pa.string())])
    table = pa.table(
        {"image": [{"bytes": b"x", "path": "1.jpg"}, {"path": "2.jpg"}], "text": ["a", "b"]}, schema
    )
    path = tmp_path / "a.arrow"
    path.write_bytes(stream(table))
    (batch,) = read([str(path)])
    assert batch.frame["image_bytes"].to_list() == [b"x", None]
    assert batch.frame["image"].to_list() == [None, str(tmp_path / "2.jpg")]
    with pa.ipc.new_file(tmp_path / "file.arrow", schema) as writer:
        writer.write_table(table)
    (batch,) = read([str(tmp_path / "file.arrow")])
    assert batch.frame["image_bytes"].to_list() == [b"x", None]


def test_every_cut_of_an_arrow_stream_is_noticed(tmp_path):
    one = stream(pa.table({"text": ["a", "b"]}))
    path = tmp_path / "a.arrow"
    for content, count in ((one, 2), (one + one, 4)):
        path.write_bytes(content)
        assert len(rows_of(str(path))) == count
    for size in [*range(4, len(one)), len(one) + 8]:
        path.write_bytes((one + one)[:size])
        with pytest.raises(InputError, match=r"a\.arrow"):
            rows_of(str(path), bad=BadRows("100%", None))


def test_a_cut_or_overwritten_parquet_file_is_damaged(tmp_path):
    path = Path(parquet(tmp_path / "a.parquet", {"text": ["some text"] * 100}, write_page_checksum=True))
    whole = path.read_bytes()
    for size in (4, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.parquet"):
            rows_of(str(path))
    for position in range(4, 60, 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert len(rows_of(str(path))) == 100
        except InputError as error:
            assert "a.parquet" in str(error)  # noqa: PT017


def test_text_that_is_not_utf8_is_damage(tmp_path):
    wrong = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    path = tmp_path / "a.arrow"
    path.write_bytes(stream(pa.table({"note": wrong})))
    with pytest.raises(InputError, match=r"a\.arrow: .*UTF8"):
        rows_of(str(path))


def test_formats_that_need_their_file(tmp_path, monkeypatch):
    path = Path(parquet(tmp_path / "a.parquet", {"text": ["a"]}))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    with pytest.raises(UsageError, match="cannot be read from a pipe"):
        rows_of()
    with pytest.raises(InputError, match="not Arrow"):
        rows_of(str(path), format="arrow")
    (tmp_path / "b.jsonl").write_bytes(b"{}\n")
    with pytest.raises(InputError, match="not Parquet"):
        rows_of(str(tmp_path / "b.jsonl"), format="parquet")


def test_a_parquet_of_references_without_pixels(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"url": ["https://e.example/1"], "caption": ["c"], "NSFW": ["no"]})
    assert rows_of(path) == [{"image": "https://e.example/1", "text": "c", "NSFW": "no"}]


def test_two_columns_of_one_name(tmp_path):
    path = tmp_path / "a.arrow"
    path.write_bytes(stream(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])))
    with pytest.raises(InputError, match="two columns are named 'x'"):
        rows_of(str(path))


def test_images_by_row_whatever_the_size_of_row_groups(tmp_path, monkeypatch):
    images = [b"%d" % i * 50 for i in range(500)]
    schema = pa.schema([("image", IMAGE)])
    columns = {"image": [{"bytes": b, "path": None} for b in images]}
    path = parquet(tmp_path / "a.parquet", columns, schema, row_group_size=180)
    order = [0, 1, 70, 499, 3, 181, 180, 179, 359, 360, 200, 201, 498, 0]
    monkeypatch.setattr(embedded, "_WINDOW_ROWS", 16)
    for cache in (128 << 20, 30_000, 0):  # all kept; one or two groups kept; windows only
        monkeypatch.setattr(embedded, "_CACHE_BYTES", cache)
        reader = ParquetImages(path)
        assert [reader.get(i) for i in order] == [images[i] for i in order]
        assert [reader.get(i) for i in range(500)] == images
        with pytest.raises(InputError, match=r"a\.parquet#500: no such row"):
            reader.get(500)
        reader.close()


def test_a_parquet_file_that_changed_is_refused(tmp_path):
    schema = pa.schema([("image", IMAGE)])
    path = parquet(tmp_path / "a.parquet", {"image": [{"bytes": b"old"}]}, schema)
    reader = ParquetImages(path)
    assert reader.get(0) == b"old"
    parquet(tmp_path / "a.parquet", {"image": [{"bytes": b"newer"}]}, schema)
    for call in (lambda: reader.get(0), lambda: reader.sha256([0])):
        with pytest.raises(InputError, match="changed"):
            call()


def test_batches_stay_small(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"text": ["a"] * 100_000})
    assert max(map(len, read([path]))) <= 65_536
    path = parquet(tmp_path / "long.parquet", {"text": [f"{i:05}" * 4000 for i in range(5000)]})
    assert max(map(len, read([path]))) <= 2000  # 40 MB at most
    table = tmp_path / "a.arrow"
    pl.DataFrame({"text": ["a"] * 20000}).write_ipc_stream(table)
    assert max(map(len, read([str(table)]))) <= 65_536
    assert sum(map(len, read([str(table)]))) == 20000


def test_a_slip_in_a_rename_shows_before_the_first_row(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"caption": ["a"]})
    with pytest.raises(UsageError, match="--map text=captoin: no row has a column 'captoin'"):
        next(read([path], renames={"captoin": "text"}))
    other = parquet(tmp_path / "b.parquet", {"captoin": ["b"]})
    assert [r["text"] for r in rows_of(path, other, renames={"captoin": "text"})] == ["a", "b"]

"""Rows out: whole or absent, and what goes in comes back."""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlcli.errors import InputError, UsageError
from vlcli.records import lineage, tables
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.reader import read
from vlcli.records.writer import open_writer

CORPUS = "examples/emoji/raw.parquet"
ROWS = [
    {"id": "1", "image": "i/a.jpg", "text": "狐狸", "query": "q", "n": 1, "x": {"a": [1.5], "b": None}},
    {"id": "2", "image": "/abs.jpg", "text": ["a", "b"], "width": 3, "height": 4},
    {"id": "3", "image": "https://e.example/1.jpg", "text_candidates": ["k"], "n": None},
]


def write(path: Path, rows: list[dict]) -> str:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def copy(source: str, output: str | None, **options) -> None:
    reading = {k: options.pop(k) for k in ("renames", "head") if k in options}
    with open_writer(output, **options) as writer:
        for batch in read([source], **reading):
            writer.write(batch)


def rows_of(path: str) -> list[dict]:
    return [row for batch in read([path]) for row in batch.rows()]


def one_batch(image: str | None, data: bytes | None, rest: dict | None = None) -> Batch:
    columns = {"image": image, "image_bytes": data, "line": 0, "text_is_scalar": False}
    schema = COLUMNS | BOOKKEEPING
    frame = pl.DataFrame([pl.Series(n, [columns.get(n)], t) for n, t in schema.items()])
    return Batch(frame, [rest or {}], "f", True)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_jsonl_comes_back_as_it_was(tmp_path, suffix):
    source = write(tmp_path / "a.jsonl", ROWS)
    out = tmp_path / f"b.{suffix}"
    copy(source, str(out))
    again = tmp_path / "c.jsonl"
    copy(str(out), str(again))
    # id, image, … come first; what the row said is the same
    assert [json.loads(line) for line in again.read_bytes().splitlines()] == ROWS
    if suffix == "jsonl.gz":
        assert gzip.decompress(out.read_bytes()) == again.read_bytes()
        first = out.read_bytes()
        copy(source, str(out), force=True)
        assert out.read_bytes() == first


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_through_a_table_and_back(tmp_path, suffix):
    rows = [ROWS[0], ROWS[2] | {"text": "t"}]
    copy(write(tmp_path / "a.jsonl", rows), str(tmp_path / f"b.{suffix}"))
    copy(str(tmp_path / f"b.{suffix}"), str(tmp_path / "c.jsonl"))
    # A table gives every row every column.
    assert rows_of(str(tmp_path / "c.jsonl")) == rows_of(
        write(tmp_path / "d.jsonl", [rows[0], rows[1] | {"x": None}])
    )


def test_text_is_a_string_column_when_all_are_strings(tmp_path):
    copy(write(tmp_path / "a.jsonl", [{"text": "a"}, {}]), str(tmp_path / "s.parquet"))
    copy(write(tmp_path / "b.jsonl", [{"text": "a"}, {"text": ["b", "c"]}]), str(tmp_path / "l.parquet"))
    assert pq.read_table(tmp_path / "s.parquet")["text"].to_pylist() == ["a", None]
    assert pq.read_table(tmp_path / "l.parquet")["text"].to_pylist() == [["a"], ["b", "c"]]


def test_a_table_keeps_its_types(tmp_path):
    frame = pl.DataFrame(
        {
            "text": ["a"],
            "day": [datetime.date(2026, 1, 2)],
            "small": pl.Series([7], dtype=pl.Int8),
            "price": pl.Series([decimal.Decimal("1.50")]),
            "vector": pl.Series([[0.5, 1.0]], dtype=pl.Array(pl.Float32, 2)),
            "blob": [b"\xff\x00"],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    for name in ("b.parquet", "b.arrow"):
        copy(str(tmp_path / "a.parquet"), str(tmp_path / name))
        (batch,) = read([str(tmp_path / name)])
        assert batch.rest.equals(frame.drop("text"))
        assert batch.rest.schema == frame.drop("text").schema
    copy(str(tmp_path / "a.parquet"), str(tmp_path / "b.jsonl"))
    (line,) = (tmp_path / "b.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "text": "a",
        "day": "2026-01-02",
        "small": 7,
        "price": "1.50",
        "vector": [0.5, 1.0],
        "blob": base64.b64encode(b"\xff\x00").decode(),
    }


def test_jsonl_writes_what_orjson_does_not(tmp_path):
    deep: list = []
    for _ in range(300):
        deep = [deep]
    out = tmp_path / "b.jsonl"
    rows = [{"n": 123456789012345678901234567890}, {"deep": deep}, {"f": 1e300, "s": "\u2028"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    copy(str(tmp_path / "a.jsonl"), str(out))
    assert [json.loads(line) for line in out.read_text().split("\n")[:-1]] == rows


@pytest.mark.parametrize(
    ("later", "name"),
    [
        ({"n": "text"}, "n"),
        ({"n": 1.5}, "n"),
        ({"new": 1}, "new"),
        ({"x": {"b": 2}}, "x"),
        ({"x": 5}, "x"),
        ({"n": 2**70}, "n"),
        ({"text": ["a"]}, "text"),
    ],
)
def test_one_clear_error_for_a_column_that_changes(tmp_path, monkeypatch, later, name):
    from vlcli.records import jsonl

    monkeypatch.setattr(jsonl, "MAX_ROWS", 2)
    first = {"n": 1, "x": {"a": 1}, "f": 0.5, "text": "t"}
    fine = {"n": None, "f": 2, "x": {"a": None}}
    source = write(tmp_path / "a.jsonl", [first, first, fine, first])
    with open(source, "a") as file:
        file.write(json.dumps(fine) + "\n" + json.dumps(later) + "\n")
    for suffix in ("parquet", "arrow"):
        out = tmp_path / f"b.{suffix}"
        with pytest.raises(InputError, match=rf"a\.jsonl:6: column '{name}': .*--to jsonl"):
            copy(source, str(out))
        assert not out.exists()
    copy(write(tmp_path / "c.jsonl", [first, first, fine, first]), str(tmp_path / "c.parquet"))
    assert pq.read_table(tmp_path / "c.parquet")["f"].to_pylist() == [0.5, 0.5, 2.0, 0.5]


def test_a_mixed_first_batch_is_named_too(tmp_path):
    source = write(tmp_path / "a.jsonl", [{"n": 1}, {"n": "x"}])
    with pytest.raises(InputError, match="column 'n': values of several types"):
        copy(source, str(tmp_path / "b.parquet"))


def test_tables_of_two_schemas(tmp_path):
    pl.DataFrame({"text": ["a"], "n": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"text": ["b"]}).write_parquet(tmp_path / "2.parquet")
    pl.DataFrame({"text": ["c"], "n": pl.Series([3], dtype=pl.Int16)}).write_parquet(tmp_path / "3.parquet")
    copy(str(tmp_path / "?.parquet"), str(tmp_path / "all.arrow"))
    assert [r["n"] for r in rows_of(str(tmp_path / "all.arrow"))] == [1, None, 3]
    pl.DataFrame({"text": ["d"], "n": ["x"]}).write_parquet(tmp_path / "4.parquet")
    with pytest.raises(InputError, match=r"4\.parquet#0: column 'n': "):
        copy(str(tmp_path / "?.parquet"), str(tmp_path / "more.arrow"))
    pl.DataFrame({"text": ["d"], "m": ["x"]}).write_parquet(tmp_path / "4.parquet")
    with pytest.raises(InputError, match=r"4\.parquet#0: column 'm': a column that the first rows lack"):
        copy(str(tmp_path / "?.parquet"), str(tmp_path / "more.arrow"))


@pytest.mark.parametrize("suffix", ["jsonl", "arrow", "parquet"])
def test_no_rows_are_a_whole_output(tmp_path, suffix):
    copy(write(tmp_path / "a.jsonl", []), str(tmp_path / f"b.{suffix}"))
    assert rows_of(str(tmp_path / f"b.{suffix}")) == []


def test_references_stay_true(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    source = write(
        tmp_path / "in" / "a.jsonl", [{"image": "i/a.jpg"}, {"image": "b.parquet#3"}, {"image": "/x"}]
    )
    monkeypatch.chdir(tmp_path)

    def images(output: str, source: str = source, **options) -> list[str]:
        copy(source, output, force=True, **options)
        return [json.loads(line)["image"] for line in Path(output).read_text().splitlines()]

    for given in (source, "in/a.jsonl"):
        assert images("in/b.jsonl", given) == ["i/a.jpg", "b.parquet#3", "/x"]
        assert images("b.jsonl", given) == ["in/i/a.jpg", "in/b.parquet#3", "/x"]
        assert images("new/deep/b.jsonl", given) == ["../../in/i/a.jpg", "../../in/b.parquet#3", "/x"]
        assert images("b.jsonl", given, image_root="in/i") == ["a.jpg", "../b.parquet#3", "/x"]
    assert rows_of("new/deep/b.jsonl")[0]["image"] == "new/deep/../../in/i/a.jpg"
    copy("in/a.jsonl", "new/b.parquet")
    assert pq.read_table("new/b.parquet")["image"].to_pylist() == ["../in/i/a.jpg", "../in/b.parquet#3", "/x"]


def test_references_on_stdout_are_absolute(tmp_path, monkeypatch, capfdbinary):
    write(tmp_path / "a.jsonl", [{"image": "i/a.jpg"}, {"image": "data:image/png;base64,AA=="}])
    monkeypatch.chdir(tmp_path)
    copy("a.jsonl", "-")
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(x)["image"] for x in lines] == [f"{tmp_path}/i/a.jpg", "data:image/png;base64,AA=="]
    copy("a.jsonl", None, image_root=tmp_path / "i")
    assert json.loads(capfdbinary.readouterr().out.splitlines()[0])["image"] == "a.jpg"


def test_pixels_without_a_file_behind_them(tmp_path):
    png = b"\x89PNG\r\n\x1a\n rest"
    batch = one_batch(None, png)
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    for name in ("a.jsonl", "a.arrow", "a.parquet"):
        with open_writer(str(tmp_path / name)) as writer:
            writer.write(batch)
        assert rows_of(str(tmp_path / name)) == [{"image": url}]
    with open_writer(str(tmp_path / "e.arrow"), embed_images=True) as writer:
        writer.write(batch)
    with pa.ipc.open_stream(tmp_path / "e.arrow") as reader:
        assert reader.read_all()["image"].to_pylist() == [{"bytes": png, "path": None}]
    (back,) = read([str(tmp_path / "e.arrow")])
    assert back.frame["image_bytes"].to_list() == [png]


def test_embedding_fetches_what_references_name(tmp_path):
    with open_writer(
        str(tmp_path / "a.parquet"), embed_images=True, read_image=lambda r: r.encode()
    ) as writer:
        writer.write(one_batch("x.jpg", None))
        writer.write(one_batch("y.jpg", b"at hand"))
        writer.write(one_batch(None, None))
    assert [i and i["bytes"] for i in pq.read_table(tmp_path / "a.parquet")["image"].to_pylist()] == [
        b"x.jpg",
        b"at hand",
        None,
    ]
    with open_writer(str(tmp_path / "b.parquet"), embed_images=True) as writer:
        writer.write(one_batch("/x.jpg", None))
    assert pq.read_table(tmp_path / "b.parquet")["image"].to_pylist() == [{"bytes": None, "path": "/x.jpg"}]


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(UsageError, match="pipe"):
        open_writer(None, format="parquet")
    with pytest.raises(UsageError, match="compresses itself"):
        open_writer(str(tmp_path / "a.parquet.gz"))
    with pytest.raises(UsageError, match="carry no pixels"):
        open_writer(None, embed_images=True)
    with pytest.raises(UsageError, match="unknown output format"):
        open_writer(None, format="csv")


def test_nothing_appears_before_the_end_or_after_a_failure(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS[:1])
    for name in ("b.jsonl", "b.jsonl.gz", "b.jsonl.zst", "b.arrow", "b.parquet"):
        out = tmp_path / name
        with open_writer(str(out)) as writer:
            for batch in read([source]):
                writer.write(batch)
            assert not out.exists()
        before = out.read_bytes()
        with pytest.raises(UsageError, match="--force"):
            copy(source, str(out))
        for error in (RuntimeError("bug"), KeyboardInterrupt()):
            with pytest.raises(type(error)), open_writer(str(out), force=True) as writer:  # noqa: PT012
                for batch in read([source]):
                    writer.write(batch)
                raise error
        assert out.read_bytes() == before
        out.unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_a_full_disk_is_an_error(format):
    with pytest.raises(OSError, match="No space left"), open_writer("/dev/full", format=format) as writer:
        writer.write(one_batch("a", None))
    with pytest.raises(OSError, match="No space left"), open_writer("/dev/full", format="arrow"):
        pass


def test_stdout_may_be_replaced(monkeypatch):
    held = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdout", held)
    with open_writer(None) as writer:
        writer.write(one_batch("/a", None))
    assert held.buffer.getvalue() == b'{"image":"/a"}\n'
    assert writer.rows == 1


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 100)
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"id": np.arange(250).astype(str)})
    with open_writer(str(path)) as writer:
        for start in range(0, 250, 50):
            columns = {"id": frame["id"][start : start + 50]}
            empty = {n: pl.repeat(None, 50, dtype=t, eager=True) for n, t in (COLUMNS | BOOKKEEPING).items()}
            writer.write(Batch(pl.DataFrame(empty | columns), pl.DataFrame(height=50), "f", False))
    meta = pq.read_metadata(path)
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [100, 100, 50]
    assert pq.read_table(path)["id"].to_pylist() == frame["id"].to_list()


def test_lineage_is_kept_and_grows(tmp_path):
    rules = {"min_side": ">200"}
    copy(
        write(tmp_path / "a.jsonl", ROWS[:1]),
        str(tmp_path / "b.parquet"),
        step=lineage.step("filter", "1.0", rules),
    )
    copy(str(tmp_path / "b.parquet"), str(tmp_path / "c.arrow"))
    copy(str(tmp_path / "c.arrow"), str(tmp_path / "d.parquet"), step=lineage.step("filter", "1.1", None))
    chain = lineage.from_metadata(pq.read_schema(tmp_path / "d.parquet").metadata)
    assert chain == (
        {"id": "filter", "name": "filter", "version": "1.0", "rules": rules},
        {"id": "filter.1", "name": "filter", "version": "1.1", "rules": None},
    )
    assert lineage.from_metadata(None) == lineage.from_metadata({b"vlcli:pg": b"nonsense"}) == ()
    assert lineage.from_metadata(pq.read_schema(CORPUS).metadata) == ()


def test_equal_work_gives_equal_bytes(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        copy(CORPUS, str(tmp_path / name), head=300, step=lineage.step("filter", "1.0", []))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert os.path.getsize(tmp_path / "a.parquet") < 100_000  # references, no pixels

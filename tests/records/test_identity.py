from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlcli.records.identity import Identity
from vlcli.records.reader import read

CORPUS = "examples/emoji/raw.parquet"


def write(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def assigned(*inputs: str, **options) -> list[dict]:
    with Identity() as identity:
        return [row for b in read(list(inputs), **options) for row in identity.assign(b).rows()]


def expected_id(image_id, texts, ordinal) -> str:
    content = json.dumps([image_id, texts, ordinal], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def test_ids_follow_content_and_count_equals(tmp_path):
    rows = [
        {"image": "a.jpg", "text": "狐"},
        {"image": "a.jpg", "text": "狐"},
        {"image": "b.jpg", "text": "狐"},
        {"image": "a.jpg", "text": ["狐"]},
        {"id": "mine", "image": "a.jpg", "text": "狐"},
        {"image": "c.jpg", "image_id": "given"},
        {"text": "no image"},
    ]
    found = assigned(write(tmp_path / "a.jsonl", rows))
    assert [r.get("image_id") for r in found] == ["a.jpg", "a.jpg", "b.jpg", "a.jpg", "a.jpg", "given", None]
    assert [r["id"] for r in found] == [
        expected_id("a.jpg", ["狐"], 0),
        expected_id("a.jpg", ["狐"], 1),
        expected_id("b.jpg", ["狐"], 0),
        expected_id("a.jpg", ["狐"], 2),
        "mine",
        expected_id("given", [], 0),
        expected_id(None, ["no image"], 0),
    ]


def test_ids_depend_neither_on_the_place_nor_on_the_working_directory(tmp_path, monkeypatch):
    rows = [{"image": "i/a.jpg", "text": "x"}, {"image": "/abs.jpg", "text": "y"}]
    one = assigned(write(tmp_path / "one" / "a.jsonl", rows))
    write(tmp_path / "two" / "deep" / "a.jsonl", rows)
    monkeypatch.chdir(tmp_path / "two")
    two = assigned("deep/a.jsonl")
    rooted = assigned("deep/a.jsonl", image_root="elsewhere")
    assert [r["id"] for r in one] == [r["id"] for r in two] == [r["id"] for r in rooted]
    assert [r["image_id"] for r in one] == ["i/a.jpg", "/abs.jpg"]


def test_equal_names_in_two_folders_are_two_images(tmp_path):
    a = write(tmp_path / "a" / "x.jsonl", [{"image": "1.jpg"}])
    b = write(tmp_path / "b" / "x.jsonl", [{"image": "1.jpg"}])
    assert [r["image_id"] for r in assigned(a, b)] == ["a/1.jpg", "b/1.jpg"]
    assert [r["image_id"] for r in assigned(a, a)] == ["1.jpg", "1.jpg"]


def test_embedded_images_are_known_by_their_bytes(tmp_path):
    truth = pq.read_table(CORPUS, columns=["image"])["image"].to_pylist()
    found = assigned(CORPUS, renames={"name": "text"}, head=1500)
    assert [r["image_id"] for r in found] == [hashlib.sha256(i["bytes"]).hexdigest() for i in truth[:1500]]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind)])
    table = pa.table({"image": [{"bytes": b"x"}, {"path": "p.jpg"}, None, {"bytes": b"x"}]}, schema)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(tmp_path / "a.arrow", schema) as writer:
        writer.write_table(table)
    digest = hashlib.sha256(b"x").hexdigest()
    rows = [assigned(str(tmp_path / name)) for name in ("a.parquet", "a.arrow")]
    assert [r.get("image_id") for r in rows[0]] == [digest, "p.jpg", None, digest]
    assert [r["id"] for r in rows[0]] == [r["id"] for r in rows[1]]
    with_bytes = assigned(str(tmp_path / "a.parquet"), image_bytes=True)
    assert [r["id"] for r in with_bytes] == [r["id"] for r in rows[0]]


def test_a_table_of_references_into_another_file_is_known_by_them(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"image": "a.parquet#0"}])
    assert assigned(path)[0]["image_id"] == "a.parquet#0"


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_batches_do_not_matter(tmp_path, monkeypatch, batch_rows):
    from vlcli.records import jsonl

    rows = [{"image": f"{i % 3}.jpg", "text": "t"} for i in range(20)]
    whole = assigned(write(tmp_path / "a.jsonl", rows))
    monkeypatch.setattr(jsonl, "MAX_ROWS", batch_rows)
    assert assigned(str(tmp_path / "a.jsonl")) == whole
    assert len({r["id"] for r in whole}) == 20

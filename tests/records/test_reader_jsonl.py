"""JSONL in: faithful, and every fault named by file and line."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.errors import InputError, UsageError
from vlcli.records import jsonl
from vlcli.records.bad import BadRows
from vlcli.records.batch import BOOKKEEPING, COLUMNS
from vlcli.records.reader import read, repeatable
from vlcli.records.rejects import RejectsWriter


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def rows_of(*inputs: str, **options) -> list[dict]:
    return [row for batch in read(list(inputs), **options) for row in batch.rows()]


def use_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


ROW = {
    "id": "a",
    "image": "https://x.example/1.jpg",
    "text": "狐狸",
    "score": 0.5,
    "tags": {"k": [1, None, "é"]},
}


def test_unknown_columns_pass_through_untouched(tmp_path):
    path = write(tmp_path / "a.jsonl", orjson.dumps(ROW) + b"\n")
    (batch,) = read([path])
    assert batch.rest == [{"score": 0.5, "tags": {"k": [1, None, "é"]}}]
    assert list(batch.frame.schema.items()) == list((COLUMNS | BOOKKEEPING).items())
    assert list(batch.rows()) == [ROW]
    assert batch.frame["line"].to_list() == [1]


def test_numbers_beyond_64_bits_keep_every_digit(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"n": 123456789012345678901234567890, "m": -1}\n')
    assert rows_of(path) == [{"n": 123456789012345678901234567890, "m": -1}]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"text":"a"}\n{"text":"b"}\n',
        b'{"text":"a"}\r\n{"text":"b"}\r\n',
        b'{"text":"a"}\n{"text":"b"}',
        b'{"text":"a"}\n\n  \n{"text":"b"}\n\n',
        b' {"text":"a"} \n\t{"text":"b"}\t\n',
    ],
    ids=["bom", "crlf", "no final newline", "blank lines", "spaces"],
)
def test_harmless_variations(tmp_path, content):
    assert rows_of(write(tmp_path / "a.jsonl", content)) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"[1]", "not a JSON object"),
        (b"oops", "not a JSON object"),
        (b'{"text": "a"', "not JSON: "),
        (b'{"text": "a\x00b"}', "NUL"),
        (b'{"text": "a\\u0000b"}', "NUL character"),
        (b'{"text": "\xff"}', "not UTF-8 (byte 11)"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b'{"text": NaN}', "not JSON: "),
        (b'{"text": 7}', "text is a number"),
        (b'{"text": ["a", null]}', "text holds null"),
        (b'{"id": true}', "id is a boolean"),
        (b'{"image": ["a"]}', "image is a list"),
        (b'{"image": {"bytes": "AAAA"}}', "image carries bytes"),
        (b'{"width": 1.5}', "width is a number"),
        (b'{"width": 99999999999999999999}', "width is a number"),
        (b'{"query": 3}', "query is a number"),
    ],
)
def test_bad_lines_are_named_or_diverted(tmp_path, line, cause):
    path = write(tmp_path / "raw.jsonl", b'{"text":"a"}\n' + line + b'\n{"text":"b"}\n')
    with pytest.raises(InputError) as error:
        rows_of(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert cause in str(error.value)
    bad = BadRows("1", None)
    assert rows_of(path, bad=bad) == [{"text": "a"}, {"text": "b"}]
    assert (bad.count, bad.seen) == (1, 3)


def test_values_that_public_sets_use(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"id": 7, "image_id": 8, "width": 3.0, "text_candidates": "one"}\n')
    assert rows_of(path) == [{"id": "7", "image_id": "8", "width": 3, "text_candidates": ["one"]}]


def test_text_remembers_whether_it_was_one_string(tmp_path):
    lines = [{"text": "a"}, {"text": ["a"]}, {"text": ["a", "b"]}, {"text": []}, {"text": None}, {}]
    path = write(tmp_path / "a.jsonl", b"".join(orjson.dumps(r) + b"\n" for r in lines))
    assert rows_of(path) == [{"text": "a"}, {"text": ["a"]}, {"text": ["a", "b"]}, {"text": []}, {}, {}]


def test_a_cut_last_line_is_fatal_whatever_max_bad_says(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text":"a"}\n{"text":"b"')
    for bad in (None, BadRows("100%", None)):
        with pytest.raises(InputError, match=r"a\.jsonl:2: the last line is cut"):
            rows_of(path, bad=bad)


def test_many_lines_of_many_blocks_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BLOCK", 1000)
    monkeypatch.setattr(jsonl, "MAX_ROWS", 7)
    lines = [{"text": "字" * (i % 50), "n": i} for i in range(500)] + [{"text": "长" * 5000, "n": 500}]
    path = write(tmp_path / "a.jsonl", b"".join(orjson.dumps(r) + b"\n" for r in lines))
    batches = list(read([path]))
    assert max(map(len, batches)) == 7
    assert [r for b in batches for r in b.rows()] == lines
    assert [n for b in batches for n in b.frame["line"]] == list(range(1, 502))


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BLOCK", 1 << 10)
    monkeypatch.setattr(jsonl, "MAX_LINE", 1 << 12)
    with pytest.raises(InputError, match="not JSON lines"):
        rows_of(write(tmp_path / "a.jsonl", b"x" * 10000))


def packed(kind: str, content: bytes) -> bytes:
    return gzip.compress(content) if kind == "gz" else zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_compressed_members(tmp_path, kind):
    one, two = packed(kind, b'{"text":"a"}\n{"te'), packed(kind, b'xt":"b"}\n')
    expected = [{"text": "a"}, {"text": "b"}]
    assert rows_of(write(tmp_path / f"a.jsonl.{kind}", one + two)) == expected
    assert rows_of(write(tmp_path / "named-otherwise", one + two)) == expected
    assert rows_of(write(tmp_path / f"e.jsonl.{kind}", packed(kind, b""))) == []
    for damaged in (one + two[:-3], one[:-1], one + two[:5], one + b"junk"):
        path = write(tmp_path / f"cut.jsonl.{kind}", damaged)
        with pytest.raises(InputError, match=r"cut\.jsonl"):
            rows_of(path, bad=BadRows("100%", None))


def test_an_empty_file_is_no_rows_unless_its_name_promises_otherwise(tmp_path):
    assert rows_of(write(tmp_path / "a.jsonl", b"")) == []
    for name in ("a.parquet", "a.arrow", "a.jsonl.gz", "a.jsonl.zst"):
        with pytest.raises(InputError, match="empty"):
            rows_of(write(tmp_path / name, b""))


def test_stdin_and_its_spool_can_be_read(monkeypatch, tmp_path):
    content = b'{"text":"a","image":"x.jpg"}\n'
    for inputs in ([], ["-"]):
        use_stdin(monkeypatch, content)
        (batch,) = read(inputs)
        assert (batch.file, batch.frame["image"].to_list()) == ("<stdin>", ["x.jpg"])
    use_stdin(monkeypatch, content + b"oops\n")
    twice = repeatable([])
    for _ in range(2):
        with pytest.raises(InputError, match="<stdin>:2: not a JSON object"):
            rows_of(*twice)
        (batch,) = read(twice, bad=BadRows("1", None))
        assert batch.frame["image"].to_list() == ["x.jpg"]
    os.unlink(twice[0])


def test_a_named_pipe_is_spooled_and_a_file_is_not(tmp_path):
    path = write(tmp_path / "a.jsonl", b"{}\n")
    assert repeatable([path]) == [path]
    reader, writer = os.pipe()
    os.write(writer, b'{"text":"p"}\n')
    os.close(writer)
    (spool,) = repeatable([f"/dev/fd/{reader}"])
    os.close(reader)
    assert rows_of(spool) == rows_of(spool) == [{"text": "p"}]
    os.unlink(spool)


def test_a_terminal_is_no_input(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(UsageError, match="terminal"):
        rows_of()


def test_directories_and_globs_are_sorted(tmp_path):
    for name, text in (
        ("b.jsonl", "2"),
        ("a.jsonl", "1"),
        ("c.jsonl.gz", "3"),
        ("skip.txt", "9"),
        (".h.jsonl", "8"),
    ):
        content = orjson.dumps({"text": text}) + b"\n"
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [r["text"] for r in rows_of(str(tmp_path))] == ["1", "2", "3"]
    assert [r["text"] for r in rows_of(str(tmp_path / "*.jsonl"))] == ["1", "2"]
    assert [r["text"] for r in rows_of(str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl"))] == ["2", "1"]


def test_missing_inputs_are_usage_errors_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("none.jsonl", "none*.jsonl", "empty"):
        with pytest.raises(UsageError):
            read([str(tmp_path / name)])
    with pytest.raises(UsageError, match="twice"):
        read(["-", "-"])
    with pytest.raises(UsageError, match="unknown input format"):
        rows_of(write(tmp_path / "a.jsonl", b"{}\n"), format="csv")


def test_a_file_whose_name_is_a_pattern(tmp_path):
    assert rows_of(write(tmp_path / "a[1].jsonl", b'{"text":"a"}\n')) == [{"text": "a"}]


def test_public_names_and_renames(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        b'{"URL":"https://e.example/1","TEXT":"a","WIDTH":3}\n'
        b'{"url":"https://e.example/2","caption":"b"}\n'
        b'{"file_name":"3.jpg","url":"u","text":"c","caption":"kept"}\n',
    )
    assert rows_of(path) == [
        {"image": "https://e.example/1", "text": "a", "width": 3},
        {"image": "https://e.example/2", "text": "b"},
        {"image": str(tmp_path / "3.jpg"), "text": "c", "url": "u", "caption": "kept"},
    ]
    assert rows_of(path, renames={"caption": "text", "text": "old"})[2]["text"] == "kept"
    with pytest.raises(UsageError, match=r"a\.jsonl:3: --map makes a second column 'text'"):
        rows_of(path, renames={"caption": "text"})
    with pytest.raises(UsageError, match="no row has a column 'captoin'"):
        rows_of(path, renames={"captoin": "x"})


def test_references_start_at_their_file_or_at_the_root(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    references = [
        "i/1.jpg",
        "/abs/2.jpg",
        "https://e.example/3.jpg",
        "data:image/png;base64,AA==",
        "s.tar#m.jpg",
    ]
    content = b"".join(orjson.dumps({"image": r}) + b"\n" for r in references)
    write(tmp_path / "d" / "a.jsonl", content)
    monkeypatch.chdir(tmp_path)
    assert [r["image"] for r in rows_of("d/a.jsonl")] == ["d/i/1.jpg", *references[1:4], "d/s.tar#m.jpg"]
    assert [r["image"] for r in rows_of("d/a.jsonl", image_root="r")] == [
        "r/i/1.jpg",
        *references[1:4],
        "r/s.tar#m.jpg",
    ]
    monkeypatch.chdir(tmp_path / "d")
    assert [r["image"] for r in rows_of("a.jsonl")] == references


def test_head_counts_bad_rows_too(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text":"1"}\nbad\n{"text":"3"}\nbad\n{"text":"5"}\n{"cut')
    for head, texts, count in (
        (0, [], 0),
        (1, ["1"], 0),
        (2, ["1"], 1),
        (3, ["1", "3"], 1),
        (5, ["1", "3", "5"], 2),
    ):
        bad = BadRows("100%", None)
        assert [r["text"] for r in rows_of(path, path, head=head, bad=bad)] == texts
        assert (bad.count, bad.seen) == (count, head)


def test_max_bad(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text":"1"}\nbad\n{"text":"3"}\nbad\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: not a JSON object$"):
        rows_of(path, bad=BadRows("0", None))
    with pytest.raises(InputError, match=r"a\.jsonl:4: .*bad row 2; --max-bad is 1"):
        rows_of(path, bad=BadRows("1", None))
    assert len(rows_of(path, bad=BadRows("2", None))) == len(rows_of(path, bad=BadRows("50%", None))) == 2
    with pytest.raises(InputError, match="2 of 4 rows are bad"):
        rows_of(path, bad=BadRows("49.9%", None))
    for wrong in ("", "x", "-1", "101%", "1.5", "nan%"):
        with pytest.raises(UsageError):
            BadRows(wrong, None)


def test_rejects_hold_bad_lines_and_dropped_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text":"1","image":"i.jpg","n":2}\n\xff\n{"text":3}\n')
    out = tmp_path / "r" / "rejects.jsonl"
    with RejectsWriter(out) as rejects:
        (batch,) = read([path], bad=BadRows("2", rejects))
        rejects.write(batch, ["text-length"], ["1 character"])
        assert not out.exists()
    dropped = {"rule": "text-length", "reason": "1 character", "file": path, "line": 1}
    cut, typed, row = map(json.loads, out.read_text().splitlines())
    assert row == dropped | {"row": {"image": "../i.jpg", "text": "1", "n": 2}}
    assert cut == {
        "rule": "bad",
        "reason": "not UTF-8 (byte 1)",
        "file": path,
        "line": 2,
        "raw_base64": "/w==",
    }
    assert (typed["line"], typed["row"]) == (3, {"text": 3})
    with RejectsWriter(None) as nowhere:
        nowhere.write(batch, ["x"], ["y"])
    assert nowhere.count == 1


# Any prefix, any flipped byte: an error that names the place, or the right rows. Never fewer in silence.

SAMPLE = [
    {"id": "1", "image": "a.jpg", "text": "一只狐狸", "n": {"x": [1, 2]}},
    {"text": ["二", 'quo"te\\'], "width": 300},
    {"text": "three", "empty": {}},
]
CONTENT = b"".join(orjson.dumps(row) + b"\n" for row in SAMPLE)
ENDS = [i + 1 for i, byte in enumerate(CONTENT) if byte == 0x0A]


def _read_bytes(content: bytes, folder: Path) -> tuple[list[dict], BadRows]:
    bad = BadRows("100%", None)
    return rows_of(write(folder / "f.jsonl", content), bad=bad, image_root="/"), bad


def test_any_prefix(tmp_path):
    whole, _ = _read_bytes(CONTENT, tmp_path)
    assert len(whole) == 3
    for size in range(len(CONTENT) + 1):
        complete = sum(end - 1 <= size for end in ENDS)  # a line needs no line end to be whole
        if size == 0 or size in ENDS or size + 1 in ENDS:
            assert _read_bytes(CONTENT[:size], tmp_path)[0] == whole[:complete]
        else:
            with pytest.raises(InputError, match=rf"f\.jsonl:{complete + 1}: the last line is cut"):
                _read_bytes(CONTENT[:size], tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_any_byte_flip(tmp_path_factory, position, mask):
    flipped = bytearray(CONTENT)
    flipped[position] ^= mask
    folder = tmp_path_factory.mktemp("flip", numbered=True)
    try:
        rows, bad = _read_bytes(bytes(flipped), folder)
    except InputError as error:
        assert "f.jsonl" in str(error)  # noqa: PT017
        return
    line = CONTENT[:position].count(b"\n")
    whole, _ = _read_bytes(CONTENT, folder)
    # Lines other than the one hit (two when a line end was hit) are read as they were.
    others = whole[:line] + whole[line + (2 if CONTENT[position] == 0x0A else 1) :]
    assert [row for row in rows if row in others] == others
    assert len(rows) + bad.count >= 3 or (CONTENT[position] == 0x0A and bad.count == 1)
    assert bad.seen == len(rows) + bad.count


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_never_ends_otherwise(tmp_path_factory, content):
    try:
        _, bad = _read_bytes(content, tmp_path_factory.mktemp("junk", numbered=True))
    except (InputError, UsageError):
        return
    assert bad.seen == sum(
        1 for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\n\r\x0b\x0c")
    )

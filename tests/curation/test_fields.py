"""Rows of several texts, cleaned field by field, against a row-by-row reference."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.curation.ends import Source, Target
from vlcli.curation.fields import parse_fields
from vlcli.curation.filter import filter_pairs
from vlcli.curation.plan import resolve
from vlcli.curation.preset import load_preset
from vlcli.errors import UsageError

ZERO = ("title", "content", "image_query")
TEXT = st.sampled_from(["狗", "一只狗", "dog", "a dog", "狗" * 128, "狗" * 129, "！", ""])
VALUE = st.none() | TEXT | st.lists(TEXT, max_size=3)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["text", *ZERO, "n"]), VALUE, max_size=5), min_size=1, max_size=12
)


def long_enough(text: str) -> bool:
    words = text.count("狗") + len(
        [w for w in text.replace("狗", " ").split() if w.isalpha() and w.isascii()]
    )
    words += text.count("一") + text.count("只")
    return 2 <= words <= 128


def reference(row: dict, fields: tuple[str, ...]) -> dict | None:
    """The row as it is kept."""
    row = {name: value for name, value in row.items() if not (name == "text" and value is None)}
    given = {f: [row[f]] if isinstance(row[f], str) else row[f] for f in fields if row.get(f) is not None}
    given = {f: texts for f, texts in given.items() if texts}
    left = {f: [t for t in texts if long_enough(t)] for f, texts in given.items()}
    if not any(left.values()):
        return None
    new = dict(row)
    for f in given:
        if not left[f]:
            del new[f]
        else:
            new[f] = left[f][0] if isinstance(row[f], str) else left[f]
    return new


def run(rows, path, fields=None, **options):
    plan = resolve(
        None, {"min-words": ">=2", "max-words": "<=128", **options}, word_unit="mixed", fields=fields
    )
    source, out = path / "in.jsonl", path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = filter_pairs(plan, Source([str(source)]), Target(str(out), force=True))
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in ("id", "image_id")} for row in found], report


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_zeros_fields_stand_in_for_a_text_that_is_absent(tmp_path_factory, rows):
    kept, report = run(rows, tmp_path_factory.getbasetemp())
    expected = [reference(row, ("text",) if row.get("text") is not None else ZERO) for row in rows]
    assert kept == [row for row in expected if row is not None]
    assert report["texts"]["in"] == report["texts"]["kept"] + report["texts"]["dropped"]


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_the_fields_that_are_named_are_judged(tmp_path_factory, rows):
    rows = [*rows, {"text": "一只狗", "title": "一只狗", "n": 1}]
    kept, _ = run(rows, tmp_path_factory.getbasetemp(), "text,title")
    assert kept == [row for row in (reference(row, ("text", "title")) for row in rows) if row is not None]


def test_parquet_keeps_its_types_and_equal_texts_of_a_row_are_counted_once(tmp_path):
    frame = pl.DataFrame(
        {
            "image": ["a", "b", "c"],
            "width": [100, 100, 99],
            "height": [20, 25, 99],
            "title": ["一只狗", "狗", None],
            "content": [None, "两只猫", "太小的图"],
            "image_query": [["狗", "一只狗"], ["猫"], None],
        }
    )
    frame.write_parquet(tmp_path / "in.parquet")
    zero = load_preset("zero")
    out = tmp_path / "out.parquet"
    report = filter_pairs(
        resolve(zero, {"max-aspect": "<=5", "max-text-freq": "<=1"}),
        Source([str(tmp_path / "in.parquet")]),
        Target(str(out)),
    )
    kept = pl.read_parquet(out)
    assert kept.select("title", "content", "image_query").rows() == [
        ("一只狗", None, ["一只狗"]),
        (None, "两只猫", None),
    ]
    assert kept.schema["image_query"] == pl.List(pl.String())
    assert report["texts"] == {"in": 7, "kept": 3, "dropped": 4, "bad": 0}
    assert report["rows"]["dropped"] == 1


def test_fields_that_cannot_be():
    for wrong in ("title,", "title,title", "width", "query"):
        with pytest.raises(UsageError, match="--fields"):
            parse_fields(wrong, "--fields")


def test_a_field_that_no_row_has_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no row has a text in 'caption2'"):
        run([{"title": "一只狗"}], tmp_path, "title,caption2")

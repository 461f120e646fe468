"""The statistics of a corpus against literal ones: Python's own statistics, Counter, jieba's words."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import filter_cases
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlcli.curation import counting
from vlcli.curation.counting import Wanted
from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.measures import IDEOGRAPH
from vlcli.curation.parts import filter_part
from vlcli.curation.plan import resolve
from vlcli.curation.query_list import Queries
from vlcli.curation.spread import Bins, Spread
from vlcli.curation.statistics import collect, cut_words
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.words import segment
from vlcli.errors import InputError, UsageError
from vlcli.records.part import Part
from vlcli.text.wordpiece import WordPiece

RAW = Path(__file__).parents[2] / "examples/emoji/raw.parquet"
EMOJI = {"name": "text", "keywords": "text_candidates"}


def rows_file(folder: Path, *rows: dict) -> Source:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Source([str(file)])


def literal(values: list[int]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.pstdev(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


@given(st.lists(st.lists(st.integers(0, 2**40), max_size=9), max_size=5))
def test_spread_is_pythons_own_statistics(parts):
    spread = Spread()
    for part in parts:
        spread.add(np.array(part, np.int64))
    values = [value for part in parts for value in part]
    assert spread.number == len(values)
    assert spread.table() == sorted(Counter(values).items())
    if values:
        assert spread.shown() == pytest.approx(literal(values), rel=1e-12, abs=1e-9)
    else:
        assert set(spread.shown().values()) == {None}


def test_bins_count_an_edge_upwards():
    bins = Bins([0, 50, 100])
    bins.add(np.array([0, 49, 50, 99.5, 100, 5000]))
    bins.add(np.array([], np.int64))
    assert bins.shown() == [
        {"from": 0, "below": 50, "count": 2},
        {"from": 50, "below": 100, "count": 2},
        {"from": 100, "below": None, "count": 2},
    ]


@pytest.fixture(scope="module")
def names() -> list[str]:
    return pl.read_parquet(RAW, columns=["name"])["name"].to_list()


def ideographs(strings: set[str]) -> set[str]:
    """Those that hold one."""
    column = pl.Series(sorted(strings))
    return set(column.filter(column.str.contains(IDEOGRAPH)))


@pytest.mark.parametrize("unit", ["wordpiece", "char", "jieba"])
def test_the_real_corpus_is_counted_as_a_loop_counts_it(unit, names, monkeypatch):
    if unit == "jieba":  # spilled to disk, and split there
        small = lambda: TextCounts(flush_bytes=1, buckets=3, bucket_bytes=1)  # noqa: E731
        monkeypatch.setattr(counting, "TextCounts", small)
    report = collect(Source([str(RAW)], renames=EMOJI), Wanted.of(unit, "rjieba", top=50))
    words = segment(names)
    if unit == "wordpiece":
        content = WordPiece.load().content
        tokens = [content(name) for name in names]
    elif unit == "char":
        han = ideographs({c for name in names for c in name})
        tokens = [[c for c in name if c in han] for name in names]
    else:
        han = ideographs({word for row in words for word in row})
        tokens = [[word for word in row if word in han] for row in words]
    lengths = [len(row) for row in tokens]
    assert report["pairs"] == report["captions"] == 9958
    assert (
        report["images"]
        == pl.read_parquet(RAW, columns=["image"])["image"].struct["bytes"].n_unique()
        == 9957
    )
    assert report["tokens"] == sum(lengths)
    assert report["unique_tokens"] == len({token for row in tokens for token in row})
    assert dict(report["tokens_per_caption"].pop("histogram")) == Counter(lengths)
    assert report["tokens_per_caption"] == pytest.approx(literal(lengths))
    assert report["fields"]["text"]["tokens"] == report["tokens_per_caption"]
    assert report["fields"]["text"]["characters"] == pytest.approx(literal([len(name) for name in names]))
    assert report["fields"]["text_candidates"]["texts"] == 45847
    counted = Counter(word for row in words for word in row if any(c.isalpha() for c in word))
    top = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:50]
    assert [(line["word"], line["count"]) for line in report["words"]["top"]][:40] == top[:40]
    assert (report["words"]["distinct"], report["words"]["total"]) == (len(counted), counted.total())
    assert report["sizes"]["width"]["mean"] == report["sizes"]["shorter_side"]["median"] == 96


def test_zeros_fields_are_captions_only_where_text_is_absent(tmp_path):
    source = rows_file(
        tmp_path,
        {"text": ["蓝天", "草"], "title": "不算", "query": "天", "text_candidates": ["天空"]},
        {"title": "大海", "content": ["海", "水 面"], "image_query": "海水", "image": "a.png"},
        {"title": 3, "content": [None, 5], "image": "a.png", "width": 300, "height": 100},
        {"image": "b.png", "width": 0, "height": 7},
    )
    report = collect(source, Wanted.of("char", "rjieba"))
    assert (report["pairs"], report["images"], report["captions"]) == (4, 2, 6)
    assert report["without_text"] == 2
    assert report["unique_tokens"] == len(set("蓝天草大海水面"))
    assert report["tokens_per_caption"]["histogram"] == [[1, 2], [2, 4]]
    fields = {name: (field["rows"], field["texts"]) for name, field in report["fields"].items()}
    assert fields == {
        **{"text": (1, 2), "title": (2, 2), "content": (1, 2), "image_query": (1, 1)},
        **{"query": (1, 1), "text_candidates": (1, 1)},
    }
    assert "不算" not in {line["word"] for line in report["words"]["top"]}
    sizes = report["sizes"]
    assert (sizes["rows"], sizes["unknown"], sizes["shorter_side"]["mean"]) == (1, 3, 100)
    assert [line["from"] for line in sizes["aspect_histogram"] if line["count"]] == [3]


def test_where_head_and_words_that_are_not_told(tmp_path):
    rows = [{"text": "〈人名〉的狗 dog 2024", "n": n} for n in range(9)]
    source = rows_file(tmp_path, *rows)
    report = collect(source, Wanted.of("wordpiece", "rjieba", where="n < 4", skip=("的",), top=9))
    assert report["rows"] == {"in": 9, "used": 4, "unused": 5, "bad": 0}
    # the name is one token; no word of the caption, and neither are digits
    assert report["tokens_per_caption"]["mean"] == len(["〈人名〉", "的", "狗", "dog", "202", "##4"])
    assert [line["word"] for line in report["words"]["top"]] == ["dog", "狗"]
    assert report["words"]["distinct"] == 3
    assert len(cut_words(report, 1)["words"]["top"]) == 1
    assert cut_words(report, 0)["words"] is None
    quick = collect(Source(source.inputs, head=2), Wanted.of("char", "rjieba", top=0))
    assert (quick["rows"]["in"], quick["words"]) == (2, None)
    with pytest.raises(UsageError, match="no row has a column 'm'"):
        collect(source, Wanted.of("char", "rjieba", where="m = 1"))
    with pytest.raises(UsageError, match="--word-unit 'letter'"):
        Wanted.of("letter", "rjieba")


def test_probing_reads_headers_and_counts_what_cannot_be_read(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = [{"image": "a.png"}, {"image": "gone.png"}, {"image": "a.png", "width": 10, "height": 40}]
    source = rows_file(tmp_path, *rows)
    wanted = Wanted.of("char", "rjieba", probe=True)
    with pytest.raises(InputError, match=r"rows.jsonl:2: .*gone.png"):
        collect(source, wanted)
    report = collect(source, wanted, max_bad="34%")
    assert report["rows"] == {"in": 3, "used": 2, "unused": 0, "bad": 1}
    assert report["sizes"]["shorter_side"]["mean"] == (48 + 10) / 2
    assert report["sizes"]["unknown"] == 0
    with pytest.raises(InputError, match="1 of 3 rows are bad"):
        collect(source, wanted, max_bad="33%")


def test_nothing_is_counted_in_nothing(tmp_path):
    report = collect(rows_file(tmp_path), Wanted.of("jieba", "rjieba"))
    assert (report["pairs"], report["images"], report["unique_tokens"], report["fields"]) == (0, 0, 0, {})
    assert report["tokens_per_caption"]["mean"] is None
    assert report["words"]["top"] == []


@pytest.mark.parametrize("unit", ["wordpiece", "mixed"])
def test_one_process_or_two(tmp_path, unit, monkeypatch):
    monkeypatch.setattr("vlcli.curation.shared_work.LARGE", 0)
    monkeypatch.setattr("vlcli.records.jsonl.BLOCK", 20_000)
    inputs = filter_cases.corpus(tmp_path, rows=2000, bad=(5, 700))
    reports, lists = [], []
    for jobs in (1, 2):
        queries = Queries(tmp_path / f"{jobs}.txt", phrase=2)
        wanted = Wanted.of(unit, "rjieba", where="id > '4' and width > 150", queries=queries, skip=("狗",))
        reports.append(collect(Source(inputs), wanted, max_bad="2", jobs=jobs))
        lists.append((tmp_path / f"{jobs}.txt").read_bytes())
    assert reports[0] == reports[1]
    assert reports[0]["rows"]["used"] > 500
    assert reports[0]["rows"]["bad"] == 2
    assert lists[0] == lists[1] != b""


def test_errors_are_told_as_one_process_tells_them(tmp_path, monkeypatch):
    monkeypatch.setattr("vlcli.curation.shared_work.LARGE", 0)
    monkeypatch.setattr("vlcli.records.jsonl.BLOCK", 9_000)
    inputs = filter_cases.corpus(tmp_path, rows=900, bad=(250, 40, 280))
    for jobs in (2, 1):
        with pytest.raises(InputError, match=r"a\.jsonl:41: not JSON"):
            collect(Source(inputs), Wanted.of("char", "rjieba"), jobs=jobs)
        monkeypatch.setattr("vlcli.curation.shared_work.Crew", None)  # one process alone needs no other
    with pytest.raises(UsageError, match="--map text=title: no row has a column 'title'"):
        collect(Source(inputs[1:2], renames={"title": "text"}), Wanted.of("char", "rjieba"))


def test_the_directory_of_a_corpus_in_parts(tmp_path):
    inputs = filter_cases.corpus(tmp_path, rows=600)
    plan = resolve(None, {"min-side": "200"})
    filter_pairs(plan, Source(inputs), Target(str(tmp_path / "kept.jsonl")))
    filter_part(plan, Source(inputs), Target(str(tmp_path / "kept")), Part())
    reports = [
        collect(Source([str(tmp_path / n)]), Wanted.of("char", "rjieba")) for n in ("kept.jsonl", "kept")
    ]
    assert {**reports[0], "inputs": []} == {**reports[1], "inputs": []}
    assert len(list((tmp_path / "kept").glob("*.jsonl"))) > 1

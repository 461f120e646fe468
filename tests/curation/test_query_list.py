"""The list of queries beside a literal count; of words and of phrases, free and from a vocabulary."""

from __future__ import annotations

import re
from collections import Counter

import polars as pl
import pytest
from test_statistics import RAW, rows_file

from vlcli.curation.query_list import Queries, QueryCounts, phrases
from vlcli.curation.statistics import Wanted, collect
from vlcli.curation.words import segment
from vlcli.errors import UsageError

CAPTIONS = [
    "一只狗在草地上，草地上有花",
    "狗 狗狗",
    "hot dog 热狗2个",
    "",
    "计算机科学",
    "计算机　科学",
]


def literal(texts: list[str], longest: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for words in segment(texts):
        for length in range(1, longest + 1):
            for i in range(len(words) - length + 1):
                run = words[i : i + length]
                if all(re.search("[\u4e00-\u9fff〇]", word) for word in run):
                    counts["".join(run)] += 1
    return counts


def ranked(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda query: (-counts[query], query))


@pytest.mark.parametrize("longest", [1, 2, 3, 8])
def test_runs_of_words_with_nothing_between(longest):
    texts = [*CAPTIONS, *pl.read_parquet(RAW, columns=["name"])["name"][:500]]
    words = pl.Series(segment(texts), dtype=pl.List(pl.String()))
    assert Counter(phrases(words, longest)) == literal(texts, longest)
    assert "狗狗" not in literal(["狗 狗"], 2)


@pytest.mark.parametrize("sizes", [{}, {"flush_bytes": 1, "buckets": 3}])
def test_the_most_frequent_first_and_equals_in_order(tmp_path, sizes):
    texts = CAPTIONS * 2 + pl.read_parquet(RAW, columns=["name"])["name"].to_list()[:300]
    counts = literal(texts, 2)
    for number, at_least, skip in ((10, 1, ()), (10_000, 1, ()), (10_000, 3, ("的", "狗"))):
        path = tmp_path / f"{number}-{at_least}.txt"
        with QueryCounts(Queries(path, number, at_least, 2), **sizes) as queries:
            for i in range(0, len(texts), 70):
                queries.add(pl.Series(segment(texts[i : i + 70]), dtype=pl.List(pl.String())))
            told = queries.write(skip)
        expected = [q for q in ranked(counts) if counts[q] >= at_least and q not in skip][:number]
        assert path.read_text(encoding="utf-8").splitlines() == expected
        assert told == {
            "written": len(expected),
            "candidates": len(counts),
            "asked": number,
            "least_frequent": counts[expected[-1]],
        }


def test_only_what_the_vocabulary_has(tmp_path):
    source = rows_file(tmp_path, *({"text": text} for text in CAPTIONS))
    vocabulary = ("草地", "草地上", "热狗", "没有", "草地")
    wanted = Wanted.of(
        "char", "rjieba", top=0, queries=Queries(tmp_path / "q", phrase=2, vocabulary=vocabulary)
    )
    report = collect(source, wanted)
    assert (tmp_path / "q").read_text(encoding="utf-8").splitlines() == ["草地", "草地上", "热狗"]
    assert report["queries"] == {"written": 3, "candidates": 3, "asked": 200_000, "least_frequent": 1}
    assert report["words"] is None
    with pytest.raises(UsageError, match="exists"):
        collect(source, wanted)


def test_names_that_were_masked_are_no_words(tmp_path):
    source = rows_file(tmp_path, {"text": "〈人名〉和狗"})
    collect(source, Wanted.of("char", "rjieba", top=0, queries=Queries(tmp_path / "q", phrase=3)))
    assert "人名" not in (tmp_path / "q").read_text(encoding="utf-8")


def test_without_any_there_is_an_empty_list(tmp_path):
    source = rows_file(tmp_path, {"text": "hot dog"})
    report = collect(source, Wanted.of("char", "rjieba", queries=Queries(tmp_path / "q")))
    assert (tmp_path / "q").read_bytes() == b""
    assert report["queries"]["least_frequent"] is None

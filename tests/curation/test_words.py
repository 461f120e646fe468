from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from vlcli.curation.words import segment
from vlcli.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    frame = pl.read_parquet(ROOT / "examples/emoji/raw.parquet", columns=["name", "keywords"])
    names = frame["name"].unique(maintain_order=True).to_list()
    joined = frame.select(pl.col("name") + "：" + pl.col("keywords").list.join("，")).to_series()
    return names + joined.drop_nulls().unique(maintain_order=True).to_list()


def test_engines_agree_word_for_word_without_guessing(texts: list[str]) -> None:
    assert segment(texts, "rjieba", hmm=False) == segment(texts, "jieba", hmm=False)


def test_engines_nearly_agree_with_guessing(texts: list[str]) -> None:
    pairs = zip(segment(texts, "rjieba"), segment(texts, "jieba"), strict=True)
    differ = sum(ours != theirs for ours, theirs in pairs)
    assert differ / len(texts) <= 0.001  # measured: 1 of 3,252, "Wi-Fi", which rjieba keeps whole


@pytest.mark.parametrize("engine", ["rjieba", "jieba"])
def test_words_joined_are_the_text(texts: list[str], engine: str) -> None:
    odd = ["", " ", "a  b\n c", "iPhone 15 Pro-Max，v2.0！", "😀狐狸\u200b𠀀", "〈人名〉在跑"]
    some = [*texts[:200], *odd]
    assert ["".join(words) for words in segment(some, engine)] == some


def test_segment() -> None:
    assert segment(["一只红色的狐狸在雪地上奔跑"]) == [
        ["一只", "红色", "的", "狐狸", "在", "雪地", "上", "奔跑"]
    ]
    assert segment([]) == []


def test_an_unknown_engine() -> None:
    with pytest.raises(UsageError, match="no segmenter 'hanlp'; choose rjieba or jieba"):
        segment(["狐狸"], "hanlp")

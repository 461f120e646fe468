from __future__ import annotations

import gzip
import random
from pathlib import Path

import polars as pl
import pytest

from vlcli.curation.sensitive import contains_any, load_words, which
from vlcli.errors import InputError, UsageError

LIST = "\ufeff# 注释\r\n赌博\r\n\n  色情 \nABC\n赌博\n赌博网站\n"


@pytest.mark.parametrize("name", ["words.txt", "words.txt.gz"])
def test_load_words(tmp_path: Path, name: str) -> None:
    raw = LIST.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    assert load_words(tmp_path / name) == ["赌博", "色情", "ABC", "赌博网站"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "words: no words"),
        (b"# x\n\n", "words: no words"),
        ("好\n".encode() + "坏".encode("gbk"), "words:2: not UTF-8"),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], "words: damaged gzip"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "words").write_bytes(raw)
    with pytest.raises(InputError, match=message):
        load_words(tmp_path / "words")


def test_a_missing_list_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match="no such word list"):
            load_words(path)


def test_contains_and_which() -> None:
    words = ["赌博", "abc", "赌博网站"]
    frame = pl.DataFrame({"text": ["最大的赌博网站aBc", "看ABC新闻", "红色狐狸", "", None]})
    out = frame.select(hit=contains_any(pl.col("text"), words), word=which(pl.col("text"), words))
    assert out["hit"].to_list() == [True, True, False, False, None]
    assert out["word"].to_list() == ["赌博网站", "ABC", None, None, None]


def test_an_empty_list_contains_nothing() -> None:
    frame = pl.DataFrame({"text": ["赌博", None]})
    out = frame.select(hit=contains_any(pl.col("text"), []), word=which(pl.col("text"), []))
    assert out["hit"].to_list() == [False, None]
    assert out["word"].to_list() == [None] * len(out)


def test_equals_substring_search() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("甲乙丙aB", k=draw.randint(2, 4))) for _ in range(30)]
    texts = ["".join(draw.choices("甲乙丙丁Aab ", k=draw.randint(0, 12))) for _ in range(2000)]
    frame = pl.DataFrame({"text": texts})
    out = frame.select(hit=contains_any(pl.col("text"), words), word=which(pl.col("text"), words))
    for text, hit, word in zip(texts, out["hit"], out["word"], strict=True):
        found = [w for w in words if w.lower() in text.lower()]
        assert hit == bool(found)
        if found:
            at = min(text.lower().index(w.lower()) for w in found)
            longest = max((w for w in found if text.lower().startswith(w.lower(), at)), key=len)
            assert word.lower() == longest.lower()
        else:
            assert word is None

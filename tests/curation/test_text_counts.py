"""The two-pass count of texts against collections.Counter, held and spilled, split and not."""

from __future__ import annotations

import unicodedata
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.curation import repeats, text_frequency
from vlcli.curation.bounds import Bound, parse_bound
from vlcli.curation.repeats import Repeats
from vlcli.curation.text_counts import TextCounts
from vlcli.curation.text_frequency import COUNT, PLAIN, FrequentTexts, max_text_freq, plain
from vlcli.records.digest import key64

BOUND = Bound("<=", 2)

# Few different texts, some of them equal only after NFC (é in two spellings) and stripping (an ideographic
# space).
TEXTS = st.sampled_from(
    ["狗", "猫", " 狗", "狗\u3000", "\u00e9", "e\u0301", "a", "A", "", "长" * 300]
) | st.text(max_size=3)
ROWS = st.lists(st.lists(TEXTS, max_size=4), max_size=40)


def literal(rows: list[list[str]]) -> Counter[str]:
    strip = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
        map(chr, range(0x2000, 0x200B))
    )
    return Counter(t for row in rows for t in {unicodedata.normalize("NFC", t).strip(strip) for t in row})


def frame(rows: list[list[str]]) -> pl.DataFrame:
    lines = [(i, text) for i, row in enumerate(rows) for text in row]
    return pl.DataFrame(lines, schema={"row": pl.UInt32(), "text": pl.String()}, orient="row")


@settings(deadline=None, max_examples=30)
@given(
    ROWS,
    ROWS,
    st.sampled_from(
        [{}, {"flush_bytes": 1, "buckets": 3}, {"flush_bytes": 1, "bucket_bytes": 1, "buckets": 2}]
    ),
)
def test_counts_equal_a_counter(first, second, sizes):
    with TextCounts(**sizes) as counts:
        counts.add(frame(first))
        counts.add(frame(second))
        found = counts.over(BOUND)
    _compare(found, first, second)


def _compare(found: pl.DataFrame, first: list[list[str]], second: list[list[str]]) -> None:
    expected = {t: n for t, n in literal(first + second).items() if n > 2}
    assert dict(found.iter_rows()) == expected
    texts = [t for row in first + second for t in row]
    asked = FrequentTexts(found).counts(pl.Series("text", texts, dtype=pl.String()))
    assert asked.to_list() == [expected.get(next(iter(literal([[t]])))) for t in texts]


@settings(deadline=None, max_examples=60)
@given(
    ROWS,
    ROWS,
    st.sampled_from(
        [{}, {"held_bytes": 1, "run_keys": 1, "range_keys": 2}, {"held_bytes": 1, "run_keys": 99}]
    ),
    st.sampled_from([None, 0, 1, 3 << 62]),
    st.booleans(),
)
def test_repeats_equal_a_counter_even_where_texts_share_a_key(first, second, sizes, mask, apart):
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        if mask is not None:
            patch.setattr(repeats, "key64", lambda texts: key64(texts) & np.uint64(mask))
        with Repeats(**sizes) as counts, Repeats(**sizes) as others:
            counts.add(frame(first))
            (others if apart else counts).add(frame(second))
            if apart:
                others.save(Path(folder))
                counts.merge([Path(folder)])
            found = counts.over(BOUND)
        _compare(found, first, second)


def test_spilled_files_go_with_the_counter(tmp_path):
    with TextCounts(tmp_path, flush_bytes=1, buckets=4) as counts:
        counts.add(frame([["狗"], ["猫"]]))
        assert list(tmp_path.rglob("*.arrows"))
    assert list(tmp_path.iterdir()) == []
    with suppress(RuntimeError), TextCounts(tmp_path, flush_bytes=1) as counts:
        counts.add(frame([["狗"]]))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_ten_are_kept_and_eleven_dropped():
    bound = parse_bound("<=10", "max", "")
    with TextCounts() as counts:
        counts.add(frame([["十"]] * 10 + [["十一"]] * 11))
        found = counts.over(bound)
    assert list(found.iter_rows()) == [("十一", 11)]
    asked = FrequentTexts(found).counts(pl.Series("text", ["十", " 十一 "]))
    keep = pl.DataFrame({COUNT: asked}).select(max_text_freq(bound).keep).to_series()
    assert keep.to_list() == [True, False]


def test_another_text_with_the_same_key_is_not_taken_for_it(monkeypatch):
    monkeypatch.setattr(text_frequency, "key64", lambda texts: np.full(len(texts), 7, np.uint64))
    found = pl.DataFrame({PLAIN: ["甲", "乙", "丙"], COUNT: [30, 20, 10]})
    asked = FrequentTexts(found).counts(pl.Series("text", ["丙", "丁", "甲", "乙"]))
    assert asked.to_list() == [10, None, 30, 20]


_ODD = st.sampled_from("가각ᄀ゙́̈がか〈⟨神\u2329\uf900Åe\u0301 \u3000々〇")


@settings(deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), _ODD), max_size=6), max_size=8))
def test_texts_are_compared_in_nfc_whatever_they_are_made_of(texts):
    found = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String())}).select(plain()).to_series()
    wanted = pl.Series([unicodedata.normalize("NFC", t) for t in texts], dtype=pl.String()).str.strip_chars()
    assert found.to_list() == wanted.to_list()

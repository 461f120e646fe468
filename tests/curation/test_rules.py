"""Every boundary of the Wukong row and text rules, and each measure beside a literal reference."""

from __future__ import annotations

import re
import sys
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlcli.curation.bounds import Bound, parse_bound
from vlcli.curation.flags import drop_flag, max_nsfw, parse_flags
from vlcli.curation.image_size import max_aspect, min_any_side, min_side
from vlcli.curation.language import lang, parse_language
from vlcli.curation.meaningless import drop_meaningless
from vlcli.curation.measures import IDEOGRAPH, Words, measure
from vlcli.curation.rule import Rule
from vlcli.curation.text_length import max_words, min_words
from vlcli.errors import UsageError

CHAR = Words()


def keeps(rule: Rule, **columns: list) -> list[bool]:
    return pl.DataFrame(columns).select(rule.keep.fill_null(False)).to_series().to_list()


def keeps_text(rule: Rule, *texts: str) -> list[bool]:
    frame = pl.DataFrame({"text": list(texts)}, schema={"text": pl.String()})
    for name in rule.columns:
        if name not in frame.columns:
            frame = measure(frame, name)
    return frame.select(rule.keep.fill_null(False)).to_series().to_list()


@pytest.mark.parametrize(
    ("value", "side", "bound"),
    [
        (">200", "min", Bound(">", 200)),
        (" >= 64 ", "min", Bound(">=", 64)),
        ("200", "min", Bound(">=", 200)),
        (200, "min", Bound(">=", 200)),
        ("10", "max", Bound("<=", 10)),
        ("<32", "max", Bound("<", 32)),
    ],
)
def test_a_bound_carries_its_operator(value, side, bound):
    assert parse_bound(value, side, "--x") == bound


@pytest.mark.parametrize("value", ["", "wide", ">", "=>3", "-1", "1e3", "nan", "3.5", "<200", "٣", True])
def test_what_is_no_lower_bound_is_a_usage_error(value):
    with pytest.raises(UsageError, match="--min-side"):
        parse_bound(value, "min", "--min-side")


def test_a_fraction_is_a_bound_of_a_ratio_only():
    assert parse_bound("2.5", "max", "--max-aspect", whole=False) == Bound("<=", 2.5)


def test_min_side_is_strict_at_200():
    rule = min_side(parse_bound(">200", "min", ""))
    assert keeps(rule, width=[200, 201, 201, 200, 500], height=[200, 200, 201, 201, 201]) == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert keeps(min_side(parse_bound("200", "min", "")), width=[200, 199], height=[200, 300]) == [
        True,
        False,
    ]


def test_max_aspect_keeps_exactly_3():
    rule = max_aspect(parse_bound("<=3", "max", "", whole=False))
    widths, heights = [603, 604, 201, 201, 201], [201, 201, 603, 604, 201]
    assert keeps(rule, width=widths, height=heights) == [True, False, True, False, True]
    strict = max_aspect(parse_bound("<3", "max", "", whole=False))
    assert keeps(strict, width=[603, 602], height=[201, 201]) == [False, True]


def test_min_any_side_drops_when_both_are_below_100():
    rule = min_any_side(parse_bound(">=100", "min", ""))
    widths, heights = [99, 100, 99, 10, 100], [99, 99, 100, 500, 100]
    assert keeps(rule, width=widths, height=heights) == [False, True, True, True, True]


def test_the_ratio_of_zero_is_kept_at_4_and_that_of_align_dropped_at_3():
    zero, align = (max_aspect(parse_bound(b, "max", "", whole=False)) for b in ("<=4", "<3"))
    assert keeps(zero, width=[400, 401, 100, 100], height=[100, 100, 400, 401]) == [True, False, True, False]
    assert keeps(align, width=[603, 602, 201], height=[201, 201, 603]) == [False, True, False]


def test_words_of_zero_are_2_to_128_ideographs_and_runs():
    words = Words("mixed")
    low, high = (
        min_words(parse_bound(">=2", "min", ""), words),
        max_words(parse_bound("<=128", "max", ""), words),
    )
    texts = [
        "狗",
        "iPhone12",
        "iPhone 12",
        "狗dog",
        "狗" * 128,
        "狗" * 127 + "a b",
        "e\u0301te\u0301, 狗",
        "…！",
    ]
    assert keeps_text(low, *texts) == [False, False, True, True, True, True, True, False]
    assert keeps_text(high, *texts) == [True, True, True, True, True, False, True, True]


def test_words_of_align_are_3_to_20_unigrams():
    words = Words("unigram")
    low, high = (
        min_words(parse_bound(">=3", "min", ""), words),
        max_words(parse_bound("<=20", "max", ""), words),
    )
    texts = [
        "a dog",
        "a-big_dog",
        "Don't!",
        "a | dog + b",
        "狗 dog",
        " ".join("a" * 20),
        " ".join("a" * 21),
        "a\u3000b。c",
    ]
    assert keeps_text(low, *texts) == [False, True, False, True, False, True, True, True]
    assert keeps_text(high, *texts) == [True, True, True, True, True, True, False, True]


def test_flags_and_scores_that_are_absent_drop_nothing():
    flagged = drop_flag(parse_flags("nsfw, violent", ""))
    assert keeps(flagged, nsfw=[1.0, 0.0, None, None, 0.5], violent=[0.0, 0.0, None, 1.0, 0.0]) == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert keeps(max_nsfw(parse_bound("0.5", "max", "", whole=False)), nsfw=[0.5, 0.51, None]) == [
        True,
        False,
        True,
    ]
    for wrong in ("nsfw,,", "text"):
        with pytest.raises(UsageError, match="--drop-flag"):
            parse_flags(wrong, "--drop-flag")


def test_words_of_wukong_are_1_to_31_ideographs():
    low, high = min_words(parse_bound(">=1", "min", ""), CHAR), max_words(parse_bound("<32", "max", ""), CHAR)
    texts = ["photo 1.jpg", "狗 dog", "狗" * 31 + " the dog", "狗" * 32]
    assert keeps_text(low, *texts) == [False, True, True, True]
    assert keeps_text(high, *texts) == [True, True, True, False]


def test_an_ideograph_is_what_unicode_calls_one():
    characters = [
        chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs")
    ]
    found = pl.Series(characters).str.contains(IDEOGRAPH)
    names = [unicodedata.name(c, "") for c in characters]
    assert [
        (name, hit)
        for name, hit in zip(names, found, strict=True)
        if hit != name.startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"))
        and name != "IDEOGRAPHIC NUMBER ZERO"  # 〇, as in 二〇二二
        and not name.startswith("HANGZHOU NUMERAL")
    ] == []
    assert pl.Series(["〇", "々", "⼀", "の", "A"]).str.contains(IDEOGRAPH).to_list() == [True, *[False] * 4]


def test_words_by_jieba_are_its_chinese_words():
    jieba = pytest.importorskip("jieba")
    texts = ["我来到北京清华大学 2020 年 tsinghua！", "狗", "", "a b c 12"]
    literal = [sum(bool(re.search("[一-龥]", w)) for w in jieba.lcut(t)) for t in texts]
    for engine in ("rjieba", "jieba"):
        words = Words("jieba", engine)
        frame = measure(pl.DataFrame({"text": texts}), words.column)
        assert frame[words.column].to_list() == literal == [5, 1, 0, 0]


def test_words_by_wordpiece_are_tokens_without_the_special_ones():
    words = Words("wordpiece")
    frame = measure(pl.DataFrame({"text": ["狗 unbelievable", "", "狗" * 200]}), words.column)
    from vlcli.text.wordpiece import WordPiece

    tokenizer = WordPiece.load()
    _, mask = tokenizer.encode(["狗 unbelievable"], length=100)
    assert frame[words.column].to_list() == [int(mask.sum()) - 2, 0, 200]


@pytest.mark.parametrize(
    ("text", "is_chinese"),
    [
        ("狗", True),
        ("狗ab", False),  # 1 of 3 letters
        ("狗a", True),  # exactly half
        ("狗狗ab", True),
        ("狗狗abc", False),
        ("狗 2020!!!", True),  # digits and punctuation are no letters
        ("犬の写真", False),
        ("개狗狗狗狗", False),
        ("ｶ狗狗狗狗狗", False),  # half-width kana
        ("人・名", True),  # the middle dot is punctuation that both use
        ("dog", False),
        ("123", False),
        ("", False),
    ],
)
def test_chinese_by_scripts(text, is_chinese):
    rule = lang(parse_language("zh", ""))
    assert rule is not None
    assert keeps_text(rule, text) == [is_chinese]
    assert lang(parse_language("any", "")) is None


# As the specification prints it.
LITERAL = re.compile(r"^[\w\-. ]+\.(jpe?g|png|gif|bmp|webp|tiff?)$", re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("000.jpg", False),
        ("  IMG_0.JPEG ", False),
        ("我的 照片.png", False),  # \w holds Chinese
        ("a-b_c.1.tif", False),
        (".gif", True),  # a name is needed before the dot
        ("000.jpg 一只狗", True),
        ("一只狗(1).jpg", True),  # as printed: no brackets in a file name
        ("photo.svg", True),
        ("2020", False),
        ("１２３ —— !!", False),
        ("1920x1080", True),
        ("+=$^`|~<>", False),
        ("", False),
        ("😀", True),
        ("狗", True),
    ],
)
def test_meaningless_texts(text, is_kept):
    assert keeps_text(drop_meaningless(), text) == [is_kept]
    if LITERAL.match(text.strip()):
        assert not is_kept


@given(
    st.text(alphabet="aZ0狗é_-. ()", max_size=8),
    st.sampled_from(["", ".jpg", ".JPEG", ".tiff", ".jp", "jpg"]),
)
def test_file_names_match_the_printed_expression(stem, suffix):
    text = stem + suffix
    has_letter = re.search(r"[^\W\d_]", text) is not None
    assert keeps_text(drop_meaningless(), text) == [has_letter and not LITERAL.match(text.strip())]

"""Languages of one script, on real names of two or three words in nine languages."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from vlcli.curation.catalogue import BY_NAME
from vlcli.curation.language import lang, parse_language
from vlcli.errors import UsageError

RAW = Path(__file__).parents[2] / "examples/emoji/raw.parquet"
NAMES = {code: f"name_{code}" for code in ("en", "es", "fr", "it", "ru", "ar", "ja", "ko")} | {"zh": "name"}


@pytest.fixture(scope="module")
def names():
    """The distinct names of each language; in the others without those that English spells alike."""
    frame = pl.read_parquet(RAW, columns=list(NAMES.values()))
    found = {code: frame[column].drop_nulls().unique().sort() for code, column in NAMES.items()}
    english = found["en"]
    return {code: s if code == "en" else s.filter(~s.is_in(english.implode())) for code, s in found.items()}


def share(rule, texts):
    return 100 * texts.to_frame("text").select(rule.keep.fill_null(False)).to_series().mean()


def test_scripts_alone_tell_languages_of_their_own_script(names):
    kept = {
        code: {other: share(lang(parse_language(code, "")), texts) for other, texts in names.items()}
        for code in ("zh", "ja", "ko", "ru", "ar", "latin")
    }
    for code in ("zh", "ko", "ru", "ar"):
        assert kept[code][code] > 96, code
        assert all(part < 2 for other, part in kept[code].items() if other not in (code, "ja")), code
        assert kept[code]["ja"] < 25  # Japanese names of Chinese characters alone
    assert kept["ja"]["ja"] > 70  # the others hold no kana
    assert max(part for other, part in kept["ja"].items() if other != "ja") == 0
    assert all((kept["latin"][code] > 97) == (code in ("en", "es", "fr", "it")) for code in names)


def test_the_identifier_tells_english_from_a_declared_set(names):
    rule = lang(parse_language("en", ""))
    kept = {code: share(rule, texts) for code, texts in names.items()}
    assert kept["en"] > 70  # of two words it is not sure; of a sentence it is
    assert max(kept[code] for code in ("es", "fr", "it")) < 5
    assert max(kept[code] for code in ("zh", "ja", "ko", "ru", "ar")) < 1
    fewer = share(lang(parse_language("en:es", "")), names["en"])
    assert fewer > kept["en"] + 5
    assert share(lang(parse_language("es", "")), names["es"]) > 70
    sentences = ["a man is riding a horse on the beach", "un homme monte à cheval sur la plage", "狗 dog", ""]
    assert pl.DataFrame({"text": sentences}).select(rule.keep)["text"].to_list() == [
        True,
        False,
        False,
        False,
    ]
    assert pl.DataFrame({"text": []}, schema={"text": pl.String()}).select(rule.keep).height == 0


def test_a_language_is_declared_with_those_it_is_told_from():
    parse = BY_NAME["lang"].parse
    assert str(parse("en", "")) == "en:de,es,fr,it,pt"
    assert str(parse("fr:es,en", "")) == "fr:en,es"
    assert str(parse("zh", "")) == "zh"
    for wrong in ("xx", "zh:en", "en:zh", "en:en", "en:", True):
        with pytest.raises(UsageError, match="--lang"):
            parse(wrong, "--lang")


def test_without_the_identifier_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lingua", None)
    with pytest.raises(UsageError, match=r"pip install 'vlcli\[lang\]', or --lang latin"):
        lang(parse_language("en", ""))

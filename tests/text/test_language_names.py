from __future__ import annotations

import unicodedata

import pytest

from vlcli.errors import UsageError
from vlcli.text.direction import after, isolated, runs_left
from vlcli.text.languages import NINE, named, parse_langs, varies
from vlcli.text.prompts import load_prompts

SCRIPTS = {
    "zh": "CJK",
    "ru": "CYRILLIC",
    "ar": "ARABIC",
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": "HANGUL",
}


def test_langs_are_a_list_without_repeats():
    assert parse_langs("en, zh,pt-BR") == ("en", "zh", "pt-BR")
    for bad, message in (
        ("", "'' names no"),
        ("en,", "'' names no"),
        ("en,../x", "names no"),
        ("en,en", "en twice"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_langs(bad)


def test_a_slot_in_a_name_is_the_language():
    assert varies("labels.{lang}.txt")
    assert not varies("labels.txt")
    assert not varies(None)
    assert named("{lang}/x.{lang}.txt", "zh") == "zh/x.zh.txt"


def test_the_parallel_templates_are_as_many_in_each_language_and_in_its_script():
    sets = {lang: load_prompts(f"parallel-20.{lang}").templates for lang in NINE}
    for lang, templates in sets.items():
        assert len(templates) == len(set(templates)) == 20, lang
        letters = [unicodedata.name(c) for t in templates for c in t.replace("{}", "") if c.isalpha()]
        assert all(name.startswith(SCRIPTS.get(lang, "LATIN")) for name in letters), lang
    assert (
        sum(len(set(templates)) for templates in sets.values())
        == len({t for s in sets.values() for t in s})
        == 180
    )
    # Line by line the same: the last has the background, and the name in front of it or behind.
    assert [lang for lang in NINE if sets[lang][-1].startswith("{}")] == ["en", "es", "fr", "ru", "ar", "it"]
    assert all("{}" in templates[-1].split()[-1] for templates in (sets["zh"], sets["ja"], sets["ko"]))


def test_arabic_is_kept_from_what_stands_beside_it():
    assert runs_left("fox ثعلب")
    assert not runs_left("狐狸 fox 3")
    assert isolated("fox") == "fox"
    assert isolated("ثعلب") == "\u2068ثعلب\u2069"
    assert after("3 ", "fox") == "3 fox"
    assert after("3 ", "ثعلب") == "\u200e3 \u2068ثعلب\u2069"

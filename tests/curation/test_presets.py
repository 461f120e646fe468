"""The four corpora's rules with their printed bounds, in order."""

from __future__ import annotations

import pytest

from vlcli.curation.plan import resolve
from vlcli.curation.preset import load_preset

ALIGN = [
    ("drop-flag", "nsfw"),
    ("min-side", ">200"),
    ("max-aspect", "<3"),
    ("max-texts-per-image", "<=1000"),
    ("lang", "en:de,es,fr,it,pt"),
    ("max-images-per-text", "<=10"),
    ("ngram-vocab-size", "<=100000000"),
    ("min-words", ">=3"),
    ("max-words", "<=20"),
]
PRINTED = {
    "zero": (
        "mixed",
        [
            ("min-ctr", "off"),
            ("min-any-side", ">=100"),
            ("max-aspect", "<=4"),
            ("drop-flag", "nsfw"),
            ("min-words", ">=2"),
            ("max-words", "<=128"),
            ("sensitive-words", "off"),
            ("against", "off"),
        ],
    ),
    "filip": (
        "char",
        [
            ("min-side", ">=200"),
            ("max-aspect", "<=3"),
            ("lang", "en:de,es,fr,it,pt"),
            ("drop-meaningless", "on"),
            ("max-text-freq", "<=10"),
        ],
    ),
    "align": ("unigram", ALIGN),
    "align-mling": ("unigram", [rule for rule in ALIGN if rule[0] != "lang"]),
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_preset_has_the_printed_rules_in_order(name):
    preset = load_preset(name)
    plan = resolve(preset, {})
    assert (plan.words.unit, [(choice.name, choice.shown) for choice in plan.choices]) == PRINTED[name]
    assert preset.source.startswith("arXiv ")
    assert len(plan.steps()[1]) == sum(value != "off" for _, value in PRINTED[name][1])

"""Counters in bounded memory, and the checksum of what was kept."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from vlcli.curation.tally import Checksum, TopStrings, Totals


def test_top_strings_are_exact_while_they_fit():
    top = TopStrings(capacity=10)
    top.add(["狗"] * 3 + ["猫"] * 3 + list("abc"))
    shown = top.shown(2)
    assert shown["counter"] == "exact"
    assert shown["strings"] == [{"text": "狗", "count": 3}, {"text": "猫", "count": 3}]


def test_top_strings_beyond_their_memory_are_never_too_high_and_too_low_by_at_most_the_error():
    chance = random.Random(0)
    strings = [f"{int(chance.paretovariate(0.6)) % 5000}" for _ in range(20_000)]
    top = TopStrings(capacity=50)
    for start in range(0, len(strings), 37):
        top.add(strings[start : start + 37])
    shown, true = top.shown(50), Counter(strings)
    assert shown["counter"] == "misra-gries"
    assert 0 < shown["too_low_by_at_most"] <= len(strings) / 50
    for line in shown["strings"]:
        assert true[line["text"]] - shown["too_low_by_at_most"] <= line["count"] <= true[line["text"]]
    assert shown["strings"][0]["text"] == true.most_common(1)[0][0]


def test_a_long_string_is_cut():
    top = TopStrings(longest=5)
    top.add(["一二三四五", "一二三四五六"])
    assert {line["text"] for line in top.shown(5)["strings"]} == {"一二三四五", "一二三四…"}


def test_the_checksum_ignores_order_and_nothing_else():
    def of(*rows):
        checksum = Checksum()
        for image_id, texts in rows:
            checksum.add([image_id], [texts])
        return checksum.hex()

    a, b = ("1", ["狗"]), ("2", ["猫", "狗"])
    assert of(a, b) == of(b, a)
    assert (
        len({of(), of(a), of(a, a), of(a, b), of(("1", ["猫"])), of(("2", ["狗", "猫"]), a), of(("1", None))})
        == 7
    )


def test_totals_that_do_not_add_up_are_a_bug():
    with pytest.raises(AssertionError, match="do not add up"):
        Totals(3, 1, 1, 0).shown()

"""Presets and options resolved into a plan."""

from __future__ import annotations

import tomllib

import pytest

from vlcli.curation.bounds import Bound
from vlcli.curation.catalogue import NAMES, named_finder
from vlcli.curation.plan import resolve
from vlcli.curation.preset import PRESETS, load_preset, preset_names
from vlcli.errors import UsageError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def values(plan):
    return {choice.name: choice.value for choice in plan.choices}


def test_wukong_has_the_printed_rules_in_the_printed_order():
    preset = load_preset("wukong")
    assert list(preset.rules) == [
        "max-per-query", "min-side", "max-aspect", "min-words", "max-words",
        "drop-meaningless", "max-text-freq", "mask-names", "sensitive-words",
    ]  # fmt: skip
    plan = resolve(preset, {})
    assert values(plan) == {
        "max-per-query": Bound("<=", 1000),
        "min-side": Bound(">", 200),
        "max-aspect": Bound("<=", 3),
        "min-words": Bound(">=", 1),
        "max-words": Bound("<", 32),
        "drop-meaningless": True,
        "max-text-freq": Bound("<=", 10),
        "mask-names": "rules",
        "sensitive-words": None,
    }
    assert plan.words.unit == "char"
    assert plan.unfilled() == ["sensitive-words"]


def test_every_preset_that_ships_is_one():
    assert "wukong" in preset_names()
    for name in preset_names():
        assert resolve(load_preset(name), {}).preset == name
        tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def test_an_option_overrides_the_preset_and_keeps_its_place(tmp_path):
    words = write(tmp_path / "words.txt", "坏\n")
    options = {"min-side": ">=64", "max-aspect": "off", "drop-meaningless": False, "sensitive-words": words}
    plan = resolve(load_preset("wukong"), options, word_unit="jieba")
    assert [choice.name for choice in plan.choices] == list(load_preset("wukong").rules)
    assert values(plan)["min-side"] == Bound(">=", 64)
    assert values(plan)["max-aspect"] is values(plan)["drop-meaningless"] is None
    assert [step.name for step in plan.steps()[1]] == [
        "max-per-query", "min-side", "min-words", "max-words", "max-text-freq", "mask-names", "sensitive-words",
    ]  # fmt: skip
    origins = {line["rule"]: line["from"] for line in plan.table()}
    assert origins["drop-meaningless"] == "--no-drop-meaningless (preset: on)"
    assert origins["word-unit"] == "--word-unit"
    assert not plan.unfilled()
    assert str(tmp_path) not in str(plan.fingerprint())


def test_options_alone_take_the_order_of_the_catalogue():
    options = {"max-text-freq": 5, "min-words": 1, "lang": "zh", "min-side": "64", "max-per-query": "9"}
    names = [choice.name for choice in resolve(None, options).choices]
    assert names == sorted(options, key=NAMES.index)
    assert resolve(None, {}).is_empty
    assert resolve(None, {"min-side": "off"}).is_empty
    assert not resolve(None, {}, where="1 = 1").is_empty


def test_a_preset_of_ones_own_sets_the_order(tmp_path):
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists" / "bad.txt", "坏\n")
    text = 'word-unit = "wordpiece"\n[rules]\nmax-words = 30\nmin-side = ">100"\nsensitive-words = "lists/bad.txt"\n'
    preset = load_preset(write(tmp_path / "mine.toml", text))
    plan = resolve(preset, {"max-aspect": "2.5"})
    assert preset.name == "mine"
    assert [choice.name for choice in plan.choices] == [
        "max-words",
        "min-side",
        "max-aspect",
        "sensitive-words",
    ]
    assert plan.words.unit == "wordpiece"
    assert plan.bound("max-aspect") == Bound("<=", 2.5)
    assert len(plan.steps()[1]) == 4


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[rules]\nmin-sid = 200\n", "did you mean 'min-side'"),
        ("[rules]\nmin-side = '<200'\n", "a minimum takes"),
        ("[rules]\nmask-names = 'yes'\n", "mask-names"),
        ("[rules]\nmin-side = 200\nmax-per-query = 9\n", "must come first"),
        ("rule = 1\n[rules]\n", "rule"),
        ("[rules\n", "not TOML"),
        ("word-unit = 'byte'\n[rules]\n", "word"),
    ],
)
def test_a_preset_that_is_wrong_says_where(tmp_path, text, cause):
    path = write(tmp_path / "mine.toml", text)
    with pytest.raises(UsageError, match=cause) as caught:
        load_preset(path)
    assert str(caught.value).startswith(path)


def test_who_finds_names_is_part_of_the_plan_and_of_its_fingerprint(tmp_path):
    wukong, mine = (
        load_preset("wukong"),
        load_preset(write(tmp_path / "m.toml", "[rules]\nmask-names = 'model'")),
    )
    by_rules, by_model = resolve(wukong, {}), resolve(wukong, {"mask-names": named_finder(None, "model")})
    assert by_rules.bound("mask-names") == "rules"
    assert by_model.bound("mask-names") == resolve(mine, {}).bound("mask-names") == "model"
    assert resolve(mine, {"mask-names": named_finder(True, "rules")}).bound("mask-names") == "rules"
    assert resolve(mine, {"mask-names": named_finder(False, None)}).bound("mask-names") is None
    assert by_rules.fingerprint() != by_model.fingerprint()
    assert {"rule": "mask-names", "value": "model", "from": "--names-by (preset: on)"} in by_model.table()
    for wrong in ((False, "model"), (None, "luck")):
        with pytest.raises(UsageError, match="--names-by"):
            named_finder(*wrong)


def test_a_preset_that_is_not_there():
    with pytest.raises(UsageError, match=r"presets are .*wukong"):
        load_preset("wukung")
    with pytest.raises(UsageError, match="no such file"):
        load_preset("nowhere/mine.toml")

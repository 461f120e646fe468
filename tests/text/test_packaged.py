"""Names and templates of installed packages, and FILIP's grammar."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vlcli.errors import UsageError
from vlcli.text import packaged
from vlcli.text.filip_prompts import NAMES, expand
from vlcli.text.labels import load_labels, load_subset, restricted
from vlcli.text.languages import NINE
from vlcli.text.prompts import load_prompts

# Combinations of FILIP's Table 11, as the paper's numbers multiply; of Flowers102 as read in filip-prompts.toml.
COMBINATIONS = {
    "cifar10": 42, "cifar100": 42, "caltech101": 20, "cars": 48, "flowers102": 48, "imagenet": 30, "food101": 42,
    "sun397": 48, "dtd": 30, "aircraft": 60, "pets": 30, "eurosat": 40,
}  # fmt: skip


def test_filips_twelve_sets_have_as_many_templates_as_combinations():
    assert {name.removeprefix("filip-"): len(load_prompts(name)) for name in NAMES} == COMBINATIONS
    for name in NAMES:
        templates = load_prompts(name).templates
        assert len(set(templates)) == len(templates)
        assert all(template.count("{}") == 1 and template.endswith(".") for template in templates)


def test_parts_that_are_none_leave_nothing_behind():
    assert expand(["a"], [""], [""]) == ["a {}."]
    assert expand(["a"], ["a type of pet"], [""]) == ["a {}, a type of pet."]
    assert expand(["a", "b"], ["c"], ["", "It's cute"]) == [
        "a {}, c.", "a {}, c. It's cute.", "b {}, c.", "b {}, c. It's cute.",
    ]  # fmt: skip
    pets = load_prompts("filip-pets").fill("Beagle")
    assert "a photo of my Beagle, a type of dog or cat. It's important to me." in pets
    assert "a photo of my Beagle, a type of pet." in pets


def test_the_eighty_english_templates_are_open_clips_own():
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    assert load_prompts("openai-80").fill("cat") == [
        template("cat") for template in OPENAI_IMAGENET_TEMPLATES
    ]
    assert list(load_labels("imagenet.en").names.values()) == list(IMAGENET_CLASSNAMES)


@pytest.mark.parametrize("lang", NINE)
def test_nine_languages_have_templates_and_names(lang):
    prompts = load_prompts(f"nllb-80.{lang}")
    assert len(prompts) == 80
    assert all(template.count("{}") == 1 for template in prompts.templates)
    part = load_labels(f"babel-imagenet.{lang}")
    assert len(part) + len(part.left_out) == 1000
    assert len(part) > 600


def test_five_languages_name_all_classes():
    for lang in ("en", "zh", "ja", "it", "ar"):
        labels = load_labels(f"imagenet.{lang}")
        assert len(labels) == 1000
        assert labels.find("n01440764") == labels.find(0) == labels.find("0") == 0
    assert load_labels("imagenet.zh").names[1] == "金鱼"
    assert [len(load_prompts(f"clip-benchmark.{lang}")) for lang in ("en", "zh", "ja", "it", "ar")] == [
        80, 80, 37, 49, 55,
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"babel-imagenet\.ko names a part"):
        load_labels("imagenet.ko")
    with pytest.raises(UsageError, match="it has 93 languages"):
        load_labels("babel-imagenet.tlh")


def test_two_hundred_classes_by_their_own_numbers_or_among_all():
    own = load_labels("imagenet-r.en")
    assert (len(own), own.names[0], own.find("n01443537")) == (200, "goldfish", 0)
    among = restricted(load_labels("imagenet.en"), load_subset("imagenet-r"))
    assert among is not None
    assert (len(among), len(among.left_out)) == (200, 800)
    assert list(among.names.values()) == list(own.names.values())
    assert among.find(1) == among.find("n01443537") == 0
    assert among.find(0) is None


def test_a_package_that_is_not_there_is_one_line_naming_the_extra(monkeypatch):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"clip-benchmark's, which is not installed; pip install 'vlcli\[class-names"
    ):
        load_prompts("nllb-80.zh")
    with pytest.raises(UsageError, match="open_clip_torch's, which is not installed"):
        load_prompts("openai-80")


def test_neither_package_is_imported():
    program = (
        "import sys; from vlcli.text.labels import load_labels; from vlcli.text.prompts import load_prompts\n"
        "load_labels('imagenet-a.zh'); load_prompts('openai-80'); load_prompts('nllb-80.ko')\n"
        "sys.exit(str({'torch', 'open_clip', 'clip_benchmark'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) in ((0, ""), (1, "\n")), done.stderr

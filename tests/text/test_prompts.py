from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from vlcli.errors import InputError, UsageError
from vlcli.text.prompts import BUILT_IN, load_prompts


def test_the_eighty_prompts_are_the_papers() -> None:
    prompts = load_prompts("wukong-80")
    assert (prompts.name, len(prompts), len(set(prompts.templates))) == ("wukong-80", 80, 78)
    assert prompts.templates[:2] == ("{}的照片。", "许多{}的照片。")
    assert prompts.templates[-1] == "{}的刺青。"
    twice = [template for template, count in Counter(prompts.templates).items() if count == 2]
    assert twice == ["{}的裁剪照片。", "{}的涂鸦照。"]
    raw = BUILT_IN["wukong-80"].read_bytes()
    sources = (BUILT_IN["wukong-80"].parent / "SOURCES.md").read_text(encoding="utf-8")
    assert hashlib.sha256(raw).hexdigest() in sources


def test_the_eighty_prompts_are_chinese_clips_in_another_order() -> None:
    from cn_clip.eval.cvinw_zeroshot_templates import openai_templates
    from cn_clip.eval.imagenet_zeroshot_templates import openai_imagenet_template

    ours = Counter(load_prompts("wukong-80").templates)
    assert Counter(template("{}") for template in openai_imagenet_template) == ours
    bare = Counter(template("{}").removesuffix("。") for template in openai_templates[:80])
    assert bare == Counter(template.removesuffix("。") for template in ours.elements())


def test_none_is_the_bare_name() -> None:
    assert load_prompts("none").templates == ("{}",)
    assert load_prompts("none").fill("狐狸") == ["狐狸"]


def test_fill_keeps_braces_of_the_name() -> None:
    assert load_prompts("wukong-80").fill("{}{c}")[0] == "{}{c}的照片。"


def test_a_file_of_templates(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeff{}的照片\r\n\r\n {c}的画\n{}的照片\n".encode())
    prompts = load_prompts(str(file))
    assert prompts.name == "mine.txt"
    assert prompts.templates == ("{}的照片", "{}的画", "{}的照片")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}的照片\n狐狸的照片\n", r"mine\.txt:2: no '\{\}' in the template '狐狸的照片'"),
        ("{}和{c}\n", r"mine\.txt:1: 2 times"),
        ("\n\n", r"mine\.txt: no templates"),
    ],
)
def test_a_bad_template_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_prompts(str(file))


def test_not_utf8_and_not_there(tmp_path: Path) -> None:
    file = tmp_path / "gbk.txt"
    file.write_bytes(b"{}\n" + "{}的照片".encode("gbk"))
    with pytest.raises(InputError, match=r"gbk\.txt:2: not UTF-8"):
        load_prompts(str(file))
    with pytest.raises(UsageError, match=r"wukong-80, none, parallel-20\.\{lang\} \(en zh"):
        load_prompts("wukong-81")

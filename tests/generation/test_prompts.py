"""Prompts of a command line, of files and of rows."""

import json

import pytest

from vlcli.errors import InputError, UsageError
from vlcli.generation.prompts import parse_prompts, read_prompts, row_prompts


def said(prompts):
    return [(prompt.lang, prompt.text, prompt.name) for prompt in prompts]


def test_a_tag_in_front_is_a_language():
    found = parse_prompts(["zh=一只猫", "pt-BR=um = dois", "E=mc²", "a cat", "zh=狗"])
    assert said(found) == [
        ("zh", "一只猫", "zh"),
        ("pt-BR", "um = dois", "pt-BR"),
        (None, "E=mc²", "000002"),
        (None, "a cat", "000003"),
        ("zh", "狗", "zh-000004"),
    ]


def test_json_and_tab_separated_files_say_the_same(tmp_path):
    prompts = {"en": "a cat", "ar": "قطة", "ja": "猫"}
    (tmp_path / "a.json").write_text(json.dumps(prompts, ensure_ascii=False, indent=1), encoding="utf-8")
    lines = "".join(f"{lang}\t{text}\n\n" for lang, text in prompts.items())
    (tmp_path / "a.tsv").write_text("\ufeff" + lines, encoding="utf-8")
    expected = [(lang, text, lang) for lang, text in prompts.items()]
    assert said(read_prompts(tmp_path / "a.json")) == said(read_prompts(tmp_path / "a.tsv")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"en\ta cat\na dog\n", r"a:2: not a language, a tab and a text"),
        (b'{"en": "a cat",\n "zh": }', r"a:2: not JSON"),
        (b'{"en": 3}', "not a language and a text"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\n", "holds no prompt"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "a")
    with pytest.raises(UsageError, match="No such file"):
        read_prompts(tmp_path / "nowhere")


def rows(file, *values):
    file.write_text("".join(json.dumps(row) + "\n" for row in values))
    return [str(file)]


def test_rows_in_several_languages(tmp_path):
    file = rows(
        tmp_path / "r.jsonl",
        {"id": "a", "name_en": "cat", "name_zh": "猫"},
        {"name_en": "dog", "name_zh": "狗"},
    )
    assert said(row_prompts(file, renames={"name_zh": "text"}, lang="zh")) == [
        ("zh", "猫", "a/zh"),
        ("zh", "狗", "000001/zh"),
    ]


def test_a_row_has_its_own_language_and_its_first_text(tmp_path):
    file = rows(
        tmp_path / "r.jsonl", {"id": "a", "text": ["cat", "a cat"], "lang": "en"}, {"id": "b", "text": "dog"}
    )
    assert said(row_prompts(file)) == [("en", "cat", "a"), (None, "dog", "b")]
    assert said(row_prompts(file, head=1)) == [("en", "cat", "a")]


def test_a_row_without_a_text_is_named(tmp_path):
    file = rows(tmp_path / "r.jsonl", {"id": "a", "text": "cat"}, {"id": "b", "text": " "})
    with pytest.raises(InputError, match=r"r\.jsonl:2: no text to draw"):
        list(row_prompts(file))

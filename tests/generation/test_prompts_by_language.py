"""Prompts of a command line, of files and of rows."""

import json

import pytest

from vlcli.errors import InputError, UsageError
from vlcli.generation.prompts_by_language import lang_of, prompts_by_language, read_prompts, tagged_prompts
from vlcli.records.reader import read


def said(prompts):
    return [(lang_of(prompt), prompt.text, prompt.name) for prompt in prompts]


def test_a_tag_in_front_is_a_language():
    found = tagged_prompts(["zh=一只猫", "pt-BR=um = dois", "E=mc²", "a cat", "zh=狗"])
    assert said(found) == [
        ("zh", "一只猫", "zh"),
        ("pt-BR", "um = dois", "pt-BR"),
        (None, "E=mc²", "text/2"),
        (None, "a cat", "text/3"),
        ("zh", "狗", "text/4"),
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
    both = {"id": "a", "name_en": "cat", "name_zh": "猫"}, {"id": "b", "name_en": "dog", "name_zh": "狗"}
    file = rows(tmp_path / "r.jsonl", *both)

    def texts(lang):
        return read(file, renames={f"name_{lang}": "text"})

    assert said(prompts_by_language(texts, ("zh", "en"))) == [
        ("zh", "猫", "a/zh"),
        ("zh", "狗", "b/zh"),
        ("en", "cat", "a/en"),
        ("en", "dog", "b/en"),
    ]


def test_an_empty_text_is_refused():
    with pytest.raises(UsageError, match="is empty"):
        tagged_prompts(["zh= "])

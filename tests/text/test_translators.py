"""What --translator names, and which of it serves a pair of languages."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlcli.errors import InputError, UsageError
from vlcli.text.line_command import TranslationFailed
from vlcli.text.translators import Translators, is_language, parse_languages, parse_translators


def of(*values):
    spec = parse_translators(values)
    return dict(spec.pairs), spec.others


def test_forms():
    assert of("command:tr a,b c") == ({}, "command:tr a,b c")
    assert of("en-de=a,de-en=b") == ({"en-de": "a", "de-en": "b"}, None)
    assert of("en-de=a,b,de-en=c=d,e") == ({"en-de": "a,b", "de-en": "c=d,e"}, None)
    assert of("en-de=command:x,de-en=y") == ({"en-de": "command:x,de-en=y"}, None)
    assert of("models/{source}-{target}", "en-zh_CN=command:rev") == (
        {"en-zh_CN": "command:rev"},
        "models/{source}-{target}",
    )
    assert of("/a-b=c") == ({}, "/a-b=c")
    assert of("./opus-mt=x") == ({}, "./opus-mt=x")


@pytest.mark.parametrize("values", [[""], ["command:"], ["command: "], ["en-de="], ["en-de=a,de-en="]])
def test_nothing_is_no_translator(values):
    with pytest.raises(UsageError, match="neither a directory nor command"):
        parse_translators(values)


def test_twice_is_an_error():
    with pytest.raises(UsageError, match="en-de has one already"):
        parse_translators(["en-de=a,en-de=b"])
    with pytest.raises(UsageError, match="every pair has one already"):
        parse_translators(["a", "command:b"])


def test_the_pair_comes_before_the_rest_and_placeholders_are_filled():
    spec = parse_translators(["opus/{source}-{target}", "en-de=special", "de-en=command:rev"])
    assert spec.directory("en", "de") == Path("special")
    assert spec.directory("ru", "en") == Path("opus/ru-en")
    assert spec.directory("de", "en") is None
    with pytest.raises(UsageError, match="nothing that translates en to ru"):
        parse_translators(["en-de=a"]).of("en", "ru")


def test_languages():
    assert parse_languages("de, zh_CN,zh-Hans", "--translate") == ("de", "zh_CN", "zh-Hans")
    for wrong in ("", "de,", "d", "de ru", "../x", "de;rm", "a" * 9, "de,de"):
        with pytest.raises(UsageError, match="--translate"):
            parse_languages(wrong, "--translate")
    assert not is_language(None)
    assert not is_language(7)


@given(st.text())
def test_a_language_is_one_word_to_a_shell(text):
    if is_language(text):
        assert not set(text) & set(" \t\n'\"$`\\;&|<>(){}[]*?!#~/.,=")


def model(folder, kind="marian", weights="model.safetensors"):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / weights).write_bytes(b"x")
    return folder


def test_what_can_be_told_of_a_directory_without_loading_it(tmp_path):
    def check(said):
        Translators(parse_translators([str(said)])).check("en", "de")

    check(model(tmp_path / "good"))
    with pytest.raises(UsageError, match=r"no such directory with a config\.json"):
        check(tmp_path / "none")
    with pytest.raises(UsageError, match="a model of type bert, not marian or mbart"):
        check(model(tmp_path / "bert", kind="bert"))
    with pytest.raises(UsageError, match="pickled ones are not read; save them anew with save_pretrained"):
        check(model(tmp_path / "old", weights="pytorch_model.bin"))
    (model(tmp_path / "broken") / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not the configuration of a model"):
        check(tmp_path / "broken")


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("vlcli.text.seq2seq.find_spec", lambda name: None if name == "sentencepiece" else 1)
    mbart = model(tmp_path / "m", kind="mbart")
    (mbart / "tokenizer.json").touch()
    Translators(parse_translators([str(mbart)])).check("en", "de")
    with pytest.raises(UsageError, match=r"needs sentencepiece; pip install 'vlcli\[translate\]'"):
        Translators(parse_translators([str(model(tmp_path / "n"))])).check("en", "de")


def test_a_fingerprint_is_of_contents_not_of_places(tmp_path):
    a, b = model(tmp_path / "a"), model(tmp_path / "b")
    (b / "README.md").write_text("notes")

    def fingerprint(said, **decoding):
        from vlcli.text.seq2seq import Decoding

        return Translators(parse_translators([str(said)]), Decoding(**decoding)).fingerprint("en", "de")

    assert fingerprint(a) == fingerprint(b) == fingerprint(a, batch_size=7)
    assert fingerprint(a) != fingerprint(a, beams=1)
    assert fingerprint(a) != fingerprint(a, precision="bf16")
    (b / "model.safetensors").write_bytes(b"y")
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint("command:rev") != fingerprint("command:cat")


def test_more_pairs_than_are_kept_at_once(tmp_path):
    """The one that was used longest ago ends well before the next starts."""
    log = tmp_path / "log"
    command = f"command:cat; echo {{source}} >> {log}"
    with Translators(parse_translators([command])) as translators:
        for source in [f"a{chr(97 + i)}" for i in range(16)]:
            assert translators.translate(["x"], source, "en") == ["x"]
        translators.translate(["x"], "aa", "en")
        translators.translate(["x"], "zz", "en")
        assert log.read_text().split() == ["ab"]
        translators.finish()
    assert len(log.read_text().split()) == 17


def test_the_end_of_a_command_is_looked_at():
    with Translators(parse_translators(["command:cat; exit 9"])) as translators:
        assert translators.translate(["x"], "en", "de") == ["x"]
        with pytest.raises(TranslationFailed, match="exit status 9"):
            translators.finish()


def test_a_fingerprint_of_all_that_a_template_names(tmp_path):
    def fingerprint(*said):
        return Translators(parse_translators(list(map(str, said)))).fingerprint_of_all()

    model(tmp_path / "en-de")
    template = tmp_path / "{source}-{target}"
    first = fingerprint(template)
    assert fingerprint(template) == first
    assert fingerprint(template, "fr-de=command:rev") != first
    (model(tmp_path / "de-en") / "model.safetensors").write_bytes(b"y")
    assert fingerprint(template) != first, "a model has come"
    assert fingerprint("command:rev") != fingerprint("command:cat")
    assert fingerprint("en-de=command:rev") != fingerprint("de-en=command:rev")

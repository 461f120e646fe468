"""`vlcli filter --augment-text` and `--translate`, by commands and by small models of random weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from tiny_translators import RAW, marian, mbart, translated_alone

from vlcli import cli
from vlcli.errors import InputError, UsageError
from vlcli.text.seq2seq import Decoding, Seq2Seq

ROOT = Path(__file__).parents[2]
SHOUT = "command:awk '{print toupper($0) \" {target}\"; fflush()}'"


def filtered(folder, rows, *options):
    """The rows that come out, and the report."""
    given = folder / "given.jsonl"
    given.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    out, report = folder / "out.jsonl", folder / "report.json"
    cli.app(
        ["filter", str(given), "-o", str(out), "--report", str(report), "--force", "-q", *map(str, options)],
        standalone_mode=False,
    )
    return [json.loads(line) for line in out.read_text().splitlines()], json.loads(report.read_text())


def names(number):
    found = pl.read_parquet(RAW, columns=["name_en"])["name_en"].unique(maintain_order=True)
    return found.gather_every(len(found) // number)[:number].to_list()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of four MarianMT models, one for two targets, an mBART and an mBART-50 one."""
    root = tmp_path_factory.mktemp("models")
    for seed, pair in enumerate(("en-de", "de-en", "en-ru", "ru-en")):
        marian(root, pair, seed)
    marian(root, "en-mul", 4, (">>de<<", ">>ru<<"))
    mbart(root, "mbart50", 5)
    mbart(root, "mbart", 6)
    return root


@pytest.fixture
def _offline(monkeypatch):
    def refuse(*_):
        pytest.fail("asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_offline")
def test_back_translations_of_a_model_are_those_of_transformers_text_by_text(tmp_path, models, capfd):
    rows = [{"id": str(i), "text": text} for i, text in enumerate(names(4))]
    rows.append({"id": "list", "text": [rows[0]["text"], "a, b"], "text_candidates": ["there"]})
    found, report = filtered(
        tmp_path, rows, "--source-lang", "en", "--augment-text", "de,ru", "--batch-size", 3,
        "--translator", models / "{source}-{target}",
    )  # fmt: skip
    assert capfd.readouterr().err == ""
    total = 0
    for row, new in zip(rows, found, strict=True):
        wanted = list(row.get("text_candidates", []))
        for text in [row["text"]] if isinstance(row["text"], str) else row["text"]:
            for pivot in ("de", "ru"):
                there = translated_alone(models / f"en-{pivot}", text, "en", pivot)
                total += 1
                if re.search(r"\w", there):  # else there is nothing to translate
                    back = translated_alone(models / f"{pivot}-en", there, pivot, "en")
                    if re.search(r"\w", back) and back not in wanted:
                        wanted.append(back)
        assert new.get("text_candidates", []) == wanted
        assert {k: v for k, v in new.items() if k != "text_candidates"} == {
            k: v for k, v in row.items() if k != "text_candidates"
        }
    assert report["translation"]["candidates"]["back-translations"] == total == 12
    assert report["translation"]["candidates"]["added"] >= 7, "the models say different things"


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize(
    ("name", "source", "target", "codes", "beams"),
    [
        ("en-mul", "en", "ru", ("en", "ru"), None),
        ("en-mul", "en", "ru", ("en", "ru"), 1),
        ("mbart50", "en", "de", ("en_XX", "de_DE"), 1),
        ("mbart50", "zh_CN", "ru", ("zh_CN", "ru_RU"), None),
        ("mbart", "en", "de_DE", ("en_XX", "de_DE"), None),
    ],
)
def test_models_of_several_languages(models, name, source, target, codes, beams):
    model = Seq2Seq(models / name, Decoding(beams=beams, batch_size=4))
    model.check(source, target)
    texts = names(4)
    options = {} if beams is None else {"num_beams": beams}
    assert model.translate(texts, source, target) == [
        translated_alone(models / name, text, *codes, **options) for text in texts
    ]
    assert model.translate([], source, target) == []


def test_an_older_mbart_has_pieces_and_no_tokenizer_json(models, tmp_path):
    old = tmp_path / "mbart50"
    shutil.copytree(models / "mbart50", old)
    (old / "tokenizer.json").unlink()
    shutil.copy(models / "pieces.model", old / "sentencepiece.bpe.model")
    found = [
        Seq2Seq(place, Decoding()).translate(names(3), "en", "de") for place in (old, models / "mbart50")
    ]
    assert found[0] == found[1]


def test_the_language_asked_for_decides(models):
    several, fifty = Seq2Seq(models / "en-mul", Decoding()), Seq2Seq(models / "mbart50", Decoding())
    for model in (several, fifty):
        assert model.translate(names(6), "en", "de") != model.translate(names(6), "en", "ru")
    with pytest.raises(UsageError, match="does not translate to 'fr'; its languages are de, ru"):
        several.check("en", "fr")
    with pytest.raises(UsageError, match="it knows no language 'xx'; its languages are af_ZA, ar_AR"):
        fifty.check("en", "xx")


def test_what_is_longer_than_a_model_reads_is_cut_and_counted(tmp_path, models):
    rows = [{"id": "1", "text": "dog " * 60}, {"id": "2", "text": "dog"}]
    _, report = filtered(
        tmp_path, rows, "--source-lang", "en", "--translate", "de", "--translator", models / "en-de"
    )
    assert report["translation"]["cut"] == 1


def test_only_safetensors_that_fit_are_read(models, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (models / "en-de").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    missing = {k: v for k, v in tensors.items() if k != "model.encoder.layers.0.fc1.weight"}
    save_file(missing, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"missing weights: model\.encoder\.layers\.0\.fc1\.weight"):
        Seq2Seq(copy, Decoding())
    weights.write_bytes(b"cut")
    with pytest.raises(InputError, match="transformers reads no translator here"):
        Seq2Seq(copy, Decoding())
    weights.unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickled ones are not read"):
        Seq2Seq(copy, Decoding())


def test_bf16_and_a_wrong_device(models, tmp_path):
    half = Seq2Seq(models / "en-de", Decoding(precision="bf16"))
    assert next(half._model.parameters()).dtype == torch.bfloat16
    assert len(half.translate(names(3), "en", "de")) == 3
    with pytest.raises(UsageError, match="--device 'moon' is none of"):
        filtered(tmp_path, [], "--source-lang", "en", "--translate", "de", "--translator", models / "en-de",
                 "--device", "moon")  # fmt: skip


def test_the_candidates_of_a_command(tmp_path):
    rows = [
        {"id": "1", "text": "a dog", "text_candidates": ["A DOG DE EN"]},
        {"id": "2", "text": ["a", "b"]},
        {"id": "3"},
        {"id": "4", "title": "t", "content": "c"},
        {"id": "5", "text": "!!! 🐶"},
        {"id": "6", "text": "a dog"},
    ]
    found, report = filtered(
        tmp_path, rows, "--source-lang", "en", "--augment-text", "de,ru", "--translator", SHOUT
    )
    assert [row.get("text_candidates") for row in found] == [
        ["A DOG DE EN", "A DOG DE en", "A DOG RU en"],
        ["A DE en", "A RU en", "B DE en", "B RU en"],
        None,
        ["T DE en", "T RU en", "C DE en", "C RU en"],
        None,
        ["A DOG DE en", "A DOG RU en"],
    ]
    counted = report["translation"]
    assert counted["pairs"]["en-de"] == {"texts": 5, "cached": 0, "translated": 5}, (
        "each text once, letters alone"
    )
    assert counted["candidates"] == {
        "back-translations": 14, "added": 12, "equal to the text": 2, "there already": 0, "empty": 0,
    }  # fmt: skip
    assert report["texts"] == {"in": 7, "kept": 7, "dropped": 0, "bad": 0}, "counts leave candidates alone"


def test_what_says_nothing_new_is_no_candidate(tmp_path):
    rows = [
        {"id": "1", "text": "cafe\u0301 "},  # comes back composed
        {"id": "2", "text": "other", "text_candidates": [" caf\u00e9"]},
        {"id": "3", "text": "void"},
    ]
    command = (
        'command:python3 -c \'import sys\nfor l in sys.stdin: print({"void": ""}.get(l.strip(), "café"))\''
    )
    found, report = filtered(
        tmp_path, rows, "--source-lang", "fr", "--augment-text", "de", "--translator", command
    )
    assert [row.get("text_candidates") for row in found] == [None, [" caf\u00e9"], None]
    assert report["translation"]["candidates"] == {
        "back-translations": 3, "added": 0, "equal to the text": 1, "there already": 1, "empty": 1,
    }  # fmt: skip


def test_each_row_in_its_own_language(tmp_path):
    rows = [
        {"id": "1", "text": "a", "lang": "en"},
        {"id": "2", "text": "b", "lang": "de"},
        {"id": "3", "text": ["c", "d"], "lang": "fr"},
        {"id": "4", "lang": None},
    ]
    command = "command:sed -u 's/$/ {source}>{target}/'"
    found, _ = filtered(tmp_path, rows, "--augment-text", "de", "--translate", "en", "--translator", command)
    assert [row.get("text_candidates") for row in found] == [
        ["a en>de de>en"], None, ["c fr>de de>fr", "d fr>de de>fr"], None,
    ]  # fmt: skip
    assert [row.get("text_en") for row in found] == ["a", "b de>en", ["c fr>en", "d fr>en"], None]
    for lang, said in ((None, "no lang"), (7, "lang '7' is no code"), ("e;n", "lang 'e;n' is no code")):
        rows[1]["lang"] = lang
        with pytest.raises(InputError, match=rf"given\.jsonl:2: {said}.*--source-lang says"):
            filtered(tmp_path, rows, "--augment-text", "de", "--translator", command)
        filtered(tmp_path, rows, "--augment-text", "de", "--translator", command, "--source-lang", "en")


def test_the_rule_on_languages_says_what_is_kept(tmp_path):
    found, _ = filtered(
        tmp_path, [{"id": "1", "text": "一只狗"}, {"id": "2", "text": "a dog"}],
        "--lang", "zh", "--augment-text", "en", "--translator", "command:sed -u 's/$/{source}{target}/'",
    )  # fmt: skip
    assert [row["text_candidates"] for row in found] == [["一只狗zhenenzh"]]


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_a_row_that_has_the_column_keeps_it(tmp_path, to):
    frame = pl.DataFrame({"id": ["1", "2", "3"], "text": ["a", "b", None], "text_zh": [None, "手工", None]})
    given, out = tmp_path / f"given.{to}", tmp_path / f"out.{to}"
    frame.write_parquet(given) if to == "parquet" else frame.write_ndjson(given)
    cli.app(
        ["filter", str(given), "-o", str(out), "-q", "--source-lang", "en", "--translate", "zh,fr,en",
         "--translator", SHOUT],
        standalone_mode=False,
    )  # fmt: skip
    found = pl.read_parquet(out) if to == "parquet" else pl.read_ndjson(out)
    assert found["text_zh"].to_list() == ["A zh", "手工", None]
    assert found["text_fr"].to_list() == ["A fr", "B fr", None]
    assert found["text_en"].to_list() == ["a", "b", None]


def test_a_column_of_another_shape_is_an_error(tmp_path):
    given = tmp_path / "given.parquet"
    pl.DataFrame({"id": ["1"], "text": [["a", "b"]], "text_zh": ["手工"]}).write_parquet(given)
    command = ["filter", str(given), "-q", "--source-lang", "en", "--translate", "zh", "--translator", SHOUT]
    with pytest.raises(
        InputError, match=r"given\.parquet: its column text_zh is String, not shaped as text is"
    ):
        cli.app([*command, "-o", str(tmp_path / "out.jsonl")], standalone_mode=False)


def test_masked_names_are_not_shown_to_the_translator_and_stay(tmp_path):
    log = tmp_path / "log"
    rows = [{"id": "1", "text": "歌手王菲在台上，和张学友合影"}, {"id": "2", "text": "〈人名〉"}]
    found, _ = filtered(
        tmp_path, rows, "--mask-names", "--source-lang", "zh", "--augment-text", "de",
        "--translator", f"command:tee -a {log} | sed -u 's/.*/[&]/'",
    )  # fmt: skip
    assert found[0]["text"] == "歌手〈人名〉在台上，和〈人名〉合影"
    assert found[0]["text_candidates"] == ["[[歌手]]〈人名〉[[在台上，和]]〈人名〉[[合影]]"]
    assert "text_candidates" not in found[1]
    assert not set(log.read_text()) & set("〈〉王菲张学友")


def test_a_stopped_run_does_not_translate_again(tmp_path):
    rows = [{"id": str(i), "text": f"text {i}"} for i in range(3000)]
    cache, log = tmp_path / "cache.db", tmp_path / "log"
    options = ["--source-lang", "en", "--translate", "de", "--translation-cache", cache]

    stop = tmp_path / "stop"  # while it is there, the command fails after 2,500 lines
    command = f"command:tee -a {log} | if [ -e {stop} ]; then sed -u 2500q; exit 7; else cat; fi"
    options += ["--translator", command]
    stop.touch()
    with pytest.raises(ValueError, match="exit status 7 and has written 2,500 lines for 3,000"):
        filtered(tmp_path, rows, *options)
    assert not (tmp_path / "out.jsonl").exists()
    stop.unlink()
    log.unlink()
    found, report = filtered(tmp_path, rows, *options)
    assert [row["text_de"] for row in found] == [row["text"] for row in rows]
    assert report["translation"]["pairs"] == {"en-de": {"texts": 3000, "cached": 2048, "translated": 952}}
    assert len(log.read_text().splitlines()) == 952
    log.unlink()
    _, report = filtered(tmp_path, rows, *options)
    assert report["translation"]["pairs"]["en-de"]["cached"] == 3000
    assert not log.exists(), "all is known: nothing is started"


def test_a_command_that_lost_count_leaves_nothing_in_the_cache(tmp_path):
    cache = tmp_path / "cache.db"
    options = ["--source-lang", "en", "--translate", "de", "--translation-cache", cache]
    rows = [{"id": "1", "text": "a"}]
    with pytest.raises(ValueError, match="not one for each"):
        filtered(tmp_path, rows, *options, "--translator", "command:read x; echo ready; echo $x; cat")
    _, report = filtered(tmp_path, rows, *options, "--translator", SHOUT)
    assert report["translation"]["pairs"]["en-de"]["cached"] == 0


def test_lineage_names_what_translated_and_no_path(tmp_path, models):
    import pyarrow.parquet as pq

    found = []
    for number, translator in enumerate(
        (models / "{source}-{target}", "command:cat", f"command:cat {tmp_path}/x -")
    ):
        out = tmp_path / f"{number}.parquet"
        given = tmp_path / "empty.jsonl"
        given.write_text("")
        cli.app(
            ["filter", str(given), "-o", str(out), "-q", "--source-lang", "en", "--augment-text", "de",
             "--translator", str(translator)],
            standalone_mode=False,
        )  # fmt: skip
        [step] = json.loads(pq.read_schema(out).metadata[b"vlcli:pg"])
        assert step["rules"]["augment-text"] == "de"
        assert step["rules"]["en-de"].startswith("sha256:")
        assert str(tmp_path) not in json.dumps(step)
        found.append(step["rules"]["en-de"])
    assert len(set(found)) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_too(tmp_path, number):
    given, mark = tmp_path / "given.jsonl", tmp_path / "pid"
    given.write_text('{"id": "1", "text": "a"}\n')
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "from vlcli.__main__ import run; run()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "filter", str(given), "-o", str(tmp_path / "out.jsonl"),
         "--source-lang", "en", "--translate", "de",
         "--translator", f"command:echo $$ > {mark}.new; mv {mark}.new {mark}; sleep 600 | cat"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said.split(": ")[1]) == (
        (130, "interrupted\n") if number == signal.SIGINT else (143, "terminated\n")
    )
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    states = [
        line.split()[1] for line in listed.stdout.splitlines() if line.split()[0] == mark.read_text().strip()
    ]
    assert all(state.startswith("Z") for state in states), "one that init has not waited for yet is gone too"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["given.jsonl", "pid"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--augment-text", "de"], "need a translator; --translator command:COMMAND"),
        (["--translator", "command:cat"], "are about --augment-text and --translate"),
        (["--beams", "2"], "are about --augment-text and --translate"),
        (["--augment-text", "de,de", "--translator", "command:cat"], "de is there twice"),
        (["--translate", "zh,fr", "--translate-to", "other", "--translator", "command:cat"],
         "names one column for 2 languages; put {target} into it"),
        (["--translate", "zh", "--translate-to", "text", "--translator", "command:cat"],
         "not a further column; the next command can rename it: --map text=text_zh"),
        (["--source-lang", "en,de", "--translate", "zh", "--translator", "command:cat"], "is more than one"),
        (["--source-lang", "en", "--translate", "zh", "--translator", "en-de=command:cat"],
         "names nothing that translates en to zh; add --translator en-zh=DIR"),
        (["--source-lang", "en", "--translate", "zh", "--translator", "nowhere"], "nowhere: no such directory"),
        (["--translate", "zh", "--translator", "command:cat", "--translation-cache", "."], "is a directory"),
        (["--translate", "zh", "--translator", "command:cat", "--translation-cache", "x", "--rejects", "x"],
         "--rejects and --translation-cache name one file, x"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_first(tmp_path, options, said):
    with pytest.raises(UsageError) as failed:
        filtered(tmp_path, [{"id": "1", "text": "a"}], *options)
    assert said in str(failed.value)
    assert not (tmp_path / "out.jsonl").exists()

"""A model in several languages: equal to one command a language, whatever way the texts come; pictures encoded once."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import UsageError
from vlcli.evaluation.captions_by_language import load_captions
from vlcli.evaluation.class_metrics import Classified, accuracies, mean_accuracies
from vlcli.evaluation.languages import classify_in, retrieve_in
from vlcli.evaluation.names_by_language import name_classes, require_columns
from vlcli.evaluation.retrieval import Ranks, mean_interval, recall_interval
from vlcli.evaluation.tasks import Retrieval, classify
from vlcli.shards.pairs import load_pairs
from vlcli.text.prompts import load_prompts

NAMES = {
    "zh": list(COLOURS),
    "en": ["red", "green", "blue", "black", "yellow", "white"],
    "ar": ["أحمر", "أخضر", "أزرق", "أسود", "أصفر", "أبيض"],
    "ja": ["赤", "緑", "青", "黒", "黄色", "白"],
}
NONE = load_prompts("none")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The same squares with texts in columns, in rows and in files."""
    root = tmp_path_factory.mktemp("languages")
    columns, rows = [], []
    files = {lang: [] for lang in NAMES}
    for i, colour in enumerate(COLOURS.values()):
        (root / f"{i}.png").write_bytes(square(colour))
        row = {"id": str(i), "image": f"{i}.png", "split": "val"}
        columns.append({**row, **{f"text_{lang}": names[i] for lang, names in NAMES.items()}})
        for lang, names in NAMES.items():
            rows.append({**row, "text": names[i], "lang": lang})
            files[lang].append({**row, "text": names[i]})
    files["ja"].reverse()  # the pictures in another order
    for name, lines in {"columns": columns, "rows": rows, **files}.items():
        said = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (root / f"{name}.jsonl").write_text(said, encoding="utf-8")
    for lang, names in NAMES.items():
        lines = "".join(f"{key}\t{name}\n" for key, name in zip("abcdef", names, strict=True))
        (root / f"labels.{lang}.txt").write_text(lines, encoding="utf-8")
    return root


class Counting:
    """A model that counts the pictures it reads."""

    def __init__(self, model):
        self.model, self.images = model, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_image(self, pixels):
        self.images += len(pixels)
        return self.model.encode_image(pixels)


def without(result, *keys):
    return {key: value for key, value in result.items() if key not in keys}


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
@pytest.mark.parametrize("way", ["columns", "rows", "files"])
def test_retrieval_is_that_of_each_language_alone(place, monkeypatch, kind, way):
    monkeypatch.chdir(place)
    langs = list(NAMES)
    model = Counting(tiny(kind))
    tables = load_captions(["{lang}.jsonl" if way == "files" else f"{way}.jsonl"], langs)
    result = retrieve_in(model, tables, dict.fromkeys(langs, NONE), bootstrap=20)
    assert result["encoded"] == {"images": 6, "images_one_by_one": 24, "texts": 24}
    assert model.images == 6
    for lang, one in zip(langs, result["langs"], strict=True):
        alone = Retrieval(
            tiny(kind), load_pairs([f"{lang}.jsonl"], optional=("split", "lang")), NONE
        ).metrics(bootstrap=20, lang=lang)
        # The Japanese file has another order of rows, by which the resamples differ.
        other = ("data", "split_hash", *(["ci95"] if lang == "ja" else []))
        assert without(one, *other) == without(alone, *other)
        assert way != "files" or one == alone
    assert list(result["average"]) == ["i2t", "t2i", "MR", "ci95"]
    for side in ("i2t", "t2i"):
        for recall, value in result["average"][side].items():
            assert value == pytest.approx(np.mean([one[side][recall] for one in result["langs"]]), abs=1e-3)


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
@pytest.mark.parametrize("by", ["column", "files"])
def test_zeroshot_is_that_of_each_language_alone(place, monkeypatch, kind, by):
    monkeypatch.chdir(place)
    langs = list(NAMES)
    rows = table(key=list("abcdef"), **{f"name_{lang}": names for lang, names in NAMES.items()})
    labels, column = ("labels.{lang}.txt", "key") if by == "files" else (None, "name_{lang}")
    namings = name_classes(langs, labels=labels, column=column, prompts="parallel-20.{lang}")
    require_columns(rows, namings)
    model = Counting(tiny(kind))
    result = classify_in(model, rows, namings, bootstrap=20, batch_size=4)
    assert model.images == 6
    assert result["encoded"] == {"images": 6, "images_one_by_one": 24, "texts": 4 * 6 * 20}
    for lang, one in zip(langs, result["langs"], strict=True):
        naming = namings[lang]
        alone = classify(
            tiny(kind), rows, load_prompts(f"parallel-20.{lang}"), column=naming.column,
            labels=naming.labels, bootstrap=20, lang=lang, batch_size=4,
        )  # fmt: skip
        assert one == alone
    mean = np.mean([one["top1"] for one in result["langs"]])
    assert result["average"]["top1"] == pytest.approx(mean, abs=1e-3)
    assert set(result["average"]) == {"metric", "top1", "top5", "mean_per_class", "ci95"}


def test_an_image_without_a_text_in_a_language_is_a_candidate_and_no_query(place, monkeypatch):
    monkeypatch.chdir(place)
    frame = pl.read_ndjson("columns.jsonl")
    frame = frame.with_columns(
        pl.when(pl.int_range(6) < 2).then(None).otherwise("text_ar").alias("text_ar"), name_zh="text_zh"
    )
    frame.write_ndjson("gaps.jsonl")
    tables = load_captions(["gaps.jsonl"], ["zh", "ar"])
    result = retrieve_in(tiny(), tables, dict.fromkeys(("zh", "ar"), NONE), bootstrap=0)
    assert [(one["images"], one["texts"]) for one in result["langs"]] == [(6, 6), (6, 4)]
    named = load_captions(["gaps.jsonl"], ["zh"], column="name_{lang}")
    assert named["zh"].texts == tables["zh"].texts


def test_pictures_of_one_name_in_two_folders_are_two(place, tmp_path):
    for lang, colours in (("zh", ["red", "blue"]), ("en", ["red", "green"])):
        (tmp_path / lang).mkdir()
        lines = []
        for i, colour in enumerate(colours):
            (tmp_path / lang / f"{i}.png").write_bytes(square(colour))
            lines.append(json.dumps({"image": f"{i}.png", "text": f"{lang} {colour}"}) + "\n")
        (tmp_path / lang / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    tables = load_captions([f"{tmp_path}/{{lang}}/rows.jsonl"], ["zh", "en"])
    result = retrieve_in(tiny(), tables, dict.fromkeys(("zh", "en"), NONE), bootstrap=0)
    assert result["encoded"]["images"] == 3


@pytest.mark.parametrize(
    ("paths", "langs", "column", "message"),
    [
        (["columns.jsonl"], ["zh", "de"], None, "--langs de: .* a column 'text_de'; leave de out, or name"),
        (["columns.jsonl"], ["zh"], "name_{lang}", "--langs zh: .* 'name_zh'"),
        (["columns.jsonl"], ["zh"], "text_zh", "is the same in every language"),
        (["rows.jsonl"], ["zh", "de"], None, "--langs de: .* has that lang; leave it out; there are ar, en"),
        (["{lang}.jsonl"], ["zh", "de"], None, "--langs de: de.jsonl: no such file"),
        (["{lang}.jsonl"], ["zh"], "text_{lang}", "each file its own texts"),
    ],
)
def test_a_language_that_the_data_lacks_is_named(place, monkeypatch, paths, langs, column, message):
    monkeypatch.chdir(place)
    with pytest.raises(UsageError, match=message):
        load_captions(paths, langs, column=column)


def test_names_that_are_the_same_in_all_languages_are_refused(place, monkeypatch):
    monkeypatch.chdir(place)
    common = {"prompts": "none", "column": "label"}
    with pytest.raises(UsageError, match="same names in every language, label;"):
        name_classes(["zh"], labels=None, **common)
    with pytest.raises(UsageError, match=r"same names in every language, labels\.zh\.txt"):
        name_classes(["zh"], labels="labels.zh.txt", **common)
    with pytest.raises(
        UsageError, match=r"--langs de: labels\.de\.txt: no such file; give it, or leave de out"
    ):
        name_classes(["zh", "de"], labels="labels.{lang}.txt", **common)
    with pytest.raises(UsageError, match=r"parallel-20\.de: no such prompt set"):
        name_classes(["de"], labels=None, column="name_{lang}", prompts="parallel-20.{lang}")
    namings = name_classes(["zh", "de"], labels=None, column="name_{lang}", prompts="none")
    with pytest.raises(UsageError, match=r"--langs de: .* 'name_de'.*--label-column X_\{lang\}"):
        require_columns(table(name_zh=NAMES["zh"], name_de=[None] * 6), namings)


def test_intervals_of_an_average_draw_an_image_for_all_languages_at_once():
    """Against a literal resampling of the images; and the average of a language with itself is that language."""
    rng = np.random.default_rng(1)
    tests = [Classified(rng.integers(1, 9, 40), rng.integers(0, 5, 40)) for _ in range(3)]
    got = mean_accuracies(tests, bootstrap=50, seed=4)["ci95"]["top1"]
    draws = np.random.default_rng(4)
    means = []
    for _ in range(50):
        drawn = draws.integers(40, size=40)
        means.append(100 * np.mean([np.mean(test.place[drawn] <= 1) for test in tests]))
    assert got == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=1e-3)
    assert mean_accuracies(tests[:1] * 2, bootstrap=50, seed=4) == accuracies(*tests[0], bootstrap=50, seed=4)


def test_intervals_of_average_recalls_draw_an_image_with_its_texts_in_all_languages():
    rng = np.random.default_rng(2)
    one = [{i} for i in range(30)]
    found = [Ranks(rng.integers(1, 14, 30), rng.integers(1, 14, 30)) for _ in range(2)]
    # The second language shows the same images in another order.
    order = rng.permutation(30)
    second = Ranks(found[1].i2t[order], found[1].t2i)
    positives = [one, [{int(i)} for i in order]]
    got = mean_interval([found[0], second], positives, [range(30), order.tolist()], count=50, seed=3)
    draws = np.random.default_rng(3)
    values = []
    for _ in range(50):
        drawn = draws.integers(30, size=30)
        values.append([100 * np.mean([np.mean(f.i2t[drawn] <= k) for f in found]) for k in (1, 5, 10)])
    expected = np.percentile(values, (2.5, 97.5), axis=0).T
    assert np.array(list(got["i2t"].values())) == pytest.approx(expected, abs=1e-3)
    alone = recall_interval(found[0], one, count=50, seed=3)
    assert mean_interval([found[0]] * 2, [one] * 2, [range(30)] * 2, count=50, seed=3) == alone

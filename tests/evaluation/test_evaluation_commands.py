"""The three commands on real files: a saved checkpoint, pairs as JSONL, pictures on the disk."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from tiny_models import COLOURS, square, tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import save_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "datasets"))
from dataset_cases import muge


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluation")
    for kind in ("global", "tokenwise", "reduced"):
        save_checkpoint(tiny(kind), root / kind, recipe={}, lineage={})
    rows = []
    for i, (name, colour) in enumerate(COLOURS.items()):
        (root / f"{i}.png").write_bytes(square(colour))
        row = {"id": f"square/{i}", "image": f"{i}.png", "text": name, "split": "val", "kind": "深浅"[i % 2]}
        row |= {"name_en": colour, "name_ar": f"لون {i}"}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    (root / "val.jsonl").write_text("".join(rows), encoding="utf-8")
    (root / "kinds.txt").write_text("深\t深色\n浅\t浅色\n", encoding="utf-8")
    mosaic = {"images": ["square/0", "square/1", "square/2", "square/3"], "target": 2, "text": "蓝色"}
    (root / "mosaics.jsonl").write_text(json.dumps(mosaic) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place)

    def run(*arguments):
        result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.mark.parametrize("kind", ["global", "tokenwise", "reduced"])
def test_retrieve_prints_one_object(run, kind):
    result = json.loads(run("retrieve", kind, "--data", "val.jsonl", "--json", "--bootstrap", "20"))
    assert (result["images"], result["texts"], result["similarity"]) == (6, 6, kind)
    assert (result["split"], result["prompts"], result["data"]) == ("val", "none", "val.jsonl")
    assert result["i2t"]["R@10"] == 100.0
    assert len(result["checkpoint"]) == 16


def test_retrieve_shows_a_table_and_points_at_mosaics(run):
    shown = run("retrieve", "tokenwise", "--data", "val.jsonl", "--mosaics", "mosaics.jsonl", "-q")
    for word in ("R@1", "mean recall", "6 images → 6 texts", "pointing", "split val"):
        assert word in " ".join(shown.split())
    for kind in ("global", "reduced"):
        assert "pointing" in run("retrieve", kind, "--data", "val.jsonl", "--mosaics", "mosaics.jsonl", "-q")


def test_a_query_gives_rows(run):
    lines = run("retrieve", "tokenwise", "--data", "val.jsonl", "--query", "红色", "--top", "2").splitlines()
    assert [json.loads(line)["rank"] for line in lines] == [1, 2]
    with pytest.raises(UsageError, match="--query"):
        run("retrieve", "tokenwise", "--data", "val.jsonl", "--query", "红", "--mosaics", "mosaics.jsonl")


def test_zeroshot_takes_labels_by_map_or_by_column(run):
    common = ("--labels", "kinds.txt", "--json", "--bootstrap", "10", "--prompts", "none")
    by_map = json.loads(run("zeroshot", "tokenwise", "--data", "val.jsonl", "--map", "label=kind", *common))
    by_column = json.loads(
        run("zeroshot", "tokenwise", "--data", "val.jsonl", "--label-column", "kind", *common)
    )
    assert by_map == by_column
    assert (by_map["n"], by_map["classes"], by_map["labels"]) == (6, 2, "kinds.txt")
    with pytest.raises(UsageError, match="label"):
        run("zeroshot", "tokenwise", "--data", "val.jsonl", *common)


def test_zeroshot_over_the_names_themselves(run):
    result = json.loads(run("zeroshot", "global", "--data", "val.jsonl", "--label-column", "text", "--json"))
    assert (result["classes"], result["prompts"], result["labels"]) == (6, "wukong-80", "values of text")
    assert "top-1" in run("zeroshot", "global", "--data", "val.jsonl", "--label-column", "text")


def test_retrieve_in_several_languages(run, place):
    columns = ("--map", "name_zh=text", "--text-column", "name_{lang}")
    sweep = ("--data", "val.jsonl", *columns, "--langs", "en,zh,ar")
    result = json.loads(run("retrieve", "global", *sweep, "--json", "--predictions", "best.{lang}.jsonl"))
    assert list(result) == ["checkpoint", "similarity", "langs", "average", "encoded"]
    assert [one["lang"] for one in result["langs"]] == ["en", "zh", "ar"]
    single = ("--data", "val.jsonl", "--map", "text=name_ar,name_zh=text", "--lang", "ar")
    alone = json.loads(run("retrieve", "global", *single, "--json"))
    assert result["langs"][2] == alone
    assert list(result["average"]["ci95"]) == ["i2t", "t2i", "MR"]
    for lang in ("en", "zh", "ar"):
        lines = (place / f"best.{lang}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 12
    with pytest.raises(UsageError, match=r"best\.en\.jsonl exists"):
        run("retrieve", "global", *sweep, "--predictions", "best.{lang}.jsonl")
    shown = " ".join(run("retrieve", "global", *sweep, "--bootstrap", "0").split())
    for words in ("3 languages, 6 images", "split val", "R@10", "│ ar │", "│ average │"):
        assert words in shown


def test_zeroshot_in_several_languages(run, place):
    for lang, names in (("en", ("dark", "light")), ("ar", ("غامق", "فاتح"))):
        lines = "".join(f"{key}\t{name}\n" for key, name in zip("深浅", names, strict=True))
        (place / f"kinds.{lang}.txt").write_text(lines, encoding="utf-8")
    sweep = (
        "--data",
        "val.jsonl",
        "--label-column",
        "kind",
        "--labels",
        "kinds.{lang}.txt",
        "--langs",
        "en,ar",
    )
    result = json.loads(run("zeroshot", "tokenwise", *sweep, "--json", "--bootstrap", "10"))
    assert list(result) == ["checkpoint", "similarity", "langs", "average", "encoded"]
    assert [one["prompts"] for one in result["langs"]] == ["parallel-20.en", "parallel-20.ar"]
    assert [one["labels"] for one in result["langs"]] == ["kinds.en.txt", "kinds.ar.txt"]
    shown = " ".join(run("zeroshot", "global", *sweep, "--bootstrap", "20").split())
    for words in ("2 languages, 6 images", "prompts parallel-20.{lang}", "top-5", "│ ar │", "│ average │"):
        assert words in shown


def test_visualize_writes_what_it_says(run, place):
    out = place / "figures"
    printed = run(
        "visualize", "tokenwise", "--image", "0.png", "--text", "红色", "-o", "figures/red.png",
        "--formats", "png,svg,json", "--json",
    )  # fmt: skip
    data = json.loads(printed)
    assert data == json.loads((out / "red.json").read_text(encoding="utf-8"))
    assert (out / "red.png").read_bytes()[:4] == b"\x89PNG"
    assert (out / "red.svg").read_text(encoding="utf-8").startswith("<?xml")
    figure = data["figures"][0]
    assert figure["image_sha256"] == hashlib.sha256((place / "0.png").read_bytes()).hexdigest()
    assert figure["label_positions"] == [1, 2]
    before = (out / "red.png").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        run("visualize", "tokenwise", "--image", "0.png", "--text", "红色", "-o", "figures/red.png")
    run("visualize", "tokenwise", "--image", "0.png", "--text", "红色", "-o", "figures/red.png", "--force")
    assert (out / "red.png").read_bytes() == before


def test_visualize_by_id_takes_the_rows_own_text_and_a_name_from_both(run, place):
    run("visualize", "tokenwise", "--data", "val.jsonl", "--id", "square/2")
    assert (place / "square-2.蓝色.png").is_file()
    with pytest.raises(UsageError, match="square/77"):
        run("visualize", "tokenwise", "--data", "val.jsonl", "--id", "square/77")
    with pytest.raises(UsageError, match="similarity is global"):
        run("visualize", "global", "--image", "0.png", "--text", "红色", "--json")
    with pytest.raises(UsageError, match=r"nowhere.png"):
        run("visualize", "tokenwise", "--image", "nowhere.png", "--text", "红色", "--json")


RETRIEVE = ("retrieve", "global", "--data", "val.jsonl", "--bootstrap", "20", "--json", "--cache", "cache")
ZEROSHOT = ("zeroshot", "global", "--data", "val.jsonl", "--prompts", "none", "--bootstrap", "20", "--json")


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (RETRIEVE, 1),
        ((*RETRIEVE, "--mosaics", "mosaics.jsonl"), 1),
        ((*RETRIEVE, "--map", "name_zh=text", "--text-column", "name_{lang}", "--langs", "en,zh"), 3),
        ((*ZEROSHOT, "--label-column", "text"), 1),
        ((*ZEROSHOT, "--label-column", "kind", "--labels", "kinds.txt", "--ensemble", "probability"), 1),
        ((*ZEROSHOT, "--label-column", "name_{lang}", "--map", "name_zh=text", "--langs", "en,zh"), 3),
    ],
)
def test_what_stands_in_a_results_file_is_not_computed_again(
    run, place, tmp_path, monkeypatch, command, lines
):
    file = tmp_path / "results.jsonl"
    kept = (*command, "--results", str(file))
    first = json.loads(run(*kept))
    assert len(file.read_bytes().splitlines()) == lines
    assert json.loads(run(*command)) == first
    with monkeypatch.context() as patched:
        patched.setattr("vlcli.evaluation.embed.inference", None)  # whoever encodes fails
        again = json.loads(run(*kept))
    first.pop("encoded", None), again.pop("encoded", None)
    assert again == first
    assert len(file.read_bytes().splitlines()) == lines
    run(*kept, "--seed", "1")
    assert len(file.read_bytes().splitlines()) == 2 * lines
    run(*kept, "--force")
    assert len(file.read_bytes().splitlines()) == 3 * lines


def test_other_pictures_of_the_same_names_are_another_test(run, place, tmp_path, monkeypatch):
    """A path tells pictures apart only where it lies."""
    for k, folder in enumerate(("clean", "worse")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "val.jsonl").write_bytes((place / "val.jsonl").read_bytes())
        for i, colour in enumerate(COLOURS.values()):
            (tmp_path / folder / f"{i}.png").write_bytes(square(colour if k == 0 else "#123456"))
    file = tmp_path / "results.jsonl"
    for command in (RETRIEVE, (*ZEROSHOT, "--label-column", "text")):
        found = []
        for folder in ("clean", "worse"):
            data = ["--data", str(tmp_path / folder / "val.jsonl")]
            arguments = [*command[:2], *data, *command[4:]]
            found.append(json.loads(run(*arguments, "--results", str(file))))
            assert found[-1] == json.loads(run(*arguments))
        number = "MR" if "MR" in found[0] else "top1"
        assert found[0][number] != found[1][number]
    assert len(file.read_bytes().splitlines()) == 4
    learnt = [*ZEROSHOT[:2], *("--label-column", "kind", "--protocol", "ridge", "--l2", "1", "--json")]
    learnt += ["--data", str(tmp_path / "clean" / "val.jsonl"), "--bootstrap", "0"]
    assert json.loads(run(*learnt, "--train", str(tmp_path / "worse" / "val.jsonl")))["train_in_test"] == 0
    (tmp_path / "copy").mkdir()
    for one in (tmp_path / "clean").iterdir():
        (tmp_path / "copy" / one.name).write_bytes(one.read_bytes())
    with pytest.raises(UsageError, match="train and test rows are the same"):
        run(*learnt, "--train", str(tmp_path / "copy" / "val.jsonl"))


def test_other_labels_of_the_training_rows_are_another_test(run, place, tmp_path):
    rows = [json.loads(line) for line in (place / "val.jsonl").read_text(encoding="utf-8").splitlines()]
    command = ["zeroshot", "global", "--data", "val.jsonl", "--label-column", "kind", "--protocol", "ridge"]
    command += ["--l2", "1", "--bootstrap", "0", "--json", "--train", str(place / "train.jsonl")]
    found = []
    for turned in (False, True):
        lines = [{**row, "kind": "深浅"[(i + turned) % 2], "text": "x"} for i, row in enumerate(rows)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (place / "train.jsonl").write_text(text, encoding="utf-8")
        found.append(json.loads(run(*command, "--results", str(tmp_path / "results.jsonl"))))
    assert found[0]["top1"] == 100 - found[1]["top1"] != 50
    assert found[0]["train_in_test"] == len(rows)


def test_a_gallery_of_no_errors_loses_no_number(run, place, tmp_path):
    one = json.loads((place / "val.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (place / "one.jsonl").write_text(json.dumps(one) + "\n", encoding="utf-8")
    out = str(tmp_path / "errors.html")
    command = ["retrieve", "global", "--data", "one.jsonl", "--json", "--gallery", out]
    assert json.loads(run(*command, "--results", str(tmp_path / "r.jsonl")))["MR"] == 100
    assert not (tmp_path / "errors.html").exists()
    assert (tmp_path / "r.jsonl").read_bytes()
    query = ["retrieve", "global", "--data", "val.jsonl", "--query-image", "0.png"]
    with pytest.raises(UsageError, match="there is no --gallery of them"):
        run(*query, "--best-texts", "--gallery", out)


def test_muge_in_a_language_asks_texts_alone_and_its_test_gives_predictions(run, tmp_path):
    muge(tmp_path)
    command = [
        "retrieve",
        "global",
        "--dataset",
        "muge",
        "--data",
        str(tmp_path),
        "--bootstrap",
        "50",
        "--json",
    ]
    alone, [swept] = json.loads(run(*command)), json.loads(run(*command, "--langs", "zh"))["langs"]
    assert alone["i2t"] is swept["i2t"] is None
    assert (alone["MR"], alone["ci95"]) == (swept["MR"], swept["ci95"])
    kept = ["--split", "test", "--results", str(tmp_path / "r.jsonl")]
    found = json.loads(run(*command, *kept, "--langs", "zh", "--predictions", str(tmp_path / "{lang}.jsonl")))
    assert found["average"]["MR"] is None
    assert len((tmp_path / "zh.jsonl").read_bytes().splitlines()) == 15
    run(*command, *kept, "--predictions", str(tmp_path / "p.jsonl"))
    assert (tmp_path / "r.jsonl").read_bytes() == b""  # nothing was measured
    with pytest.raises(InputError, match="no image has a text"):
        run(*command, *kept)


def test_a_language_of_a_sweep_is_the_language_alone(run, tmp_path):
    file = tmp_path / "results.jsonl"
    sweep = (*RETRIEVE, "--map", "name_zh=text", "--text-column", "name_{lang}", "--langs", "en,ar")
    run(*sweep, "--results", str(file))
    single = (*RETRIEVE, "--map", "text=name_ar,name_zh=text", "--lang", "ar", "--results", str(file))
    run(*single)
    assert len(file.read_bytes().splitlines()) == 3


def test_two_checkpoints_are_compared(run, tmp_path):
    file = tmp_path / "results.jsonl"
    for command, number in ((RETRIEVE, "MR"), ((*ZEROSHOT, "--label-column", "text"), "top1")):
        found = json.loads(run(*command, "--compare", "tokenwise", "--results", str(file)))
        one, other = found["results"]
        assert one == json.loads(run(*command))
        assert (one["similarity"], other["similarity"]) == ("global", "tokenwise")
        assert found["difference"][number] == pytest.approx(one[number] - other[number], abs=2e-4)
        assert "first − second" in run(
            *(word for word in command if word != "--json"), "--compare", "tokenwise"
        )
        with pytest.raises(UsageError, match="both are checkpoint"):
            run(*command, "--compare", "global")
    assert len(file.read_bytes().splitlines()) == 4
    with pytest.raises(UsageError, match="--compare does not go with --langs"):
        run(*RETRIEVE, "--compare", "tokenwise", "--langs", "en,zh")
    with pytest.raises(UsageError, match="--query has no metrics"):
        run(*RETRIEVE, "--query", "红", "--results", str(file))

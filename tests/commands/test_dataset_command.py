"""--dataset from the command line: the pairs of a set, and what is measured on its files."""

import json
import sys
from pathlib import Path

import pytest

from vlcli.cli import app
from vlcli.errors import UsageError, VlcliError
from vlcli.models.checkpoint import save_checkpoint

sys.path += [str(Path(__file__).parents[1] / name) for name in ("datasets", "evaluation")]
from dataset_cases import emoji, json_lines, muge, pictures
from test_readers import coco_cn, xtd
from tiny_models import tiny


def run(*arguments):
    """(exit code, line of the error)."""
    try:
        app([str(argument) for argument in arguments], prog_name="vlcli", standalone_mode=False)
    except VlcliError as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    save_checkpoint(tiny("global"), root / "run", recipe={}, lineage={})
    muge(root / "MUGE")
    xtd(root / "XTD", 12)
    coco_cn(root / "COCO-CN")
    return root


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("VLCLI_RETRIEVE_CACHE", "off")


def test_dataset_prints_pairs_that_retrieve_reads(place, tmp_path, capsys):
    out = tmp_path / "xtd.jsonl"
    assert run("dataset", "xtd", place / "XTD", "--lang", "zh,ja", "-o", out) == (0, "")
    said = capsys.readouterr().err
    assert "warning: xtd test has 12 images here, and 1,000 as it was published" in said
    assert "xtd test: 24 pairs of 12 images" in said
    rows = [json.loads(line) for line in out.open()]
    assert rows[0]["text"] == emoji()[0][1]
    assert not Path(rows[0]["image"]).is_absolute()
    common = ("--langs", "zh,ja", "--bootstrap", "0", "--json", "--device", "cpu")
    assert run("retrieve", place / "run", "--data", out, *common)[0] == 0
    by_rows = json.loads(capsys.readouterr().out)
    assert run("retrieve", place / "run", "--dataset", "xtd", "--data", place / "XTD", *common)[0] == 0
    by_files = json.loads(capsys.readouterr().out)
    assert by_files["average"] == by_rows["average"]
    assert [one["data"] for one in by_files["langs"]] == ["xtd", "xtd"]
    assert by_files["langs"][0]["split"] == "test"


def test_muge_is_asked_from_texts_to_images_alone(place, tmp_path, capsys):
    common = ("--dataset", "muge", "--data", place / "MUGE", "--device", "cpu", "--json", "--bootstrap", "10")
    assert run("retrieve", place / "run", *common) == (0, "")
    found = json.loads(capsys.readouterr().out)
    assert (found["i2t"], found["images"], found["texts"]) == (None, 12, 3)
    assert found["MR"] == pytest.approx(sum(found["t2i"].values()) / 3, abs=1e-3)
    assert (found["data"], found["split"], found["lang"]) == ("muge", "val", "zh")
    best = tmp_path / "best.jsonl"
    blind = ("--split", "test", "--predictions", best, "--predictions-as", "muge")
    assert run("retrieve", place / "run", *common, *blind) == (0, "")
    assert json.loads(capsys.readouterr().out)["MR"] is None
    lines = [json.loads(line) for line in best.open()]
    assert sorted(line["query_id"] for line in lines) == [8428, 8429, 8430, 8431]
    assert all(len(set(line["item_ids"])) == 10 for line in lines)
    assert lines[0]["query_text"] == "高级感托特包斜挎"


def test_finetune_learns_the_train_split_and_is_judged_by_val(place, capsys):
    for split in ("train", "val"):
        (place / "COCO-CN" / f"coco-cn_{split}.txt").write_text("COCO_val2014_000000217153\n")
    line = ("finetune", place / "run", "--dataset", "coco-cn", "--data", place / "COCO-CN")
    assert run(*line, "--dry-run", "--batch-size", "1") == (0, "")
    captured = capsys.readouterr()
    assert captured.out.startswith("# 1 pairs")
    assert "coco-cn val has 1 texts here, and 1,100" in captured.err
    code, said = run("finetune", place / "run", "--dataset", "coco-cn")
    assert (code, said) == (2, "--dataset coco-cn has no --data; --data DIR")


def test_what_does_not_go_together_is_one_line_and_exit_2(place, tmp_path):
    json_lines(tmp_path / "long_itm_val.json", [{"text": "猫", "image_path": "a.jpg", "label": 1}])
    pictures(tmp_path, ["a.jpg"])
    retrieve = ("retrieve", place / "run", "--data")
    for line, said in (
        ((*retrieve, place / "XTD", "--dataset", "xtd"), "is in 11 languages"),
        ((*retrieve, place / "XTD", "--dataset", "xtd", "--lang", "ko"), "no test_1kcaptions_ko.txt"),
        ((*retrieve, place / "MUGE", "--dataset", "muge", "--map", "text=x"), "--map"),
        ((*retrieve, place / "MUGE", "--dataset", "muge", "--predictions-as", "muge"), "--predictions"),
        ((*retrieve, tmp_path, "--dataset", "icm"), "is for matching"),
        ((*retrieve, tmp_path, "--dataset", "cxc", "--query", "cat"), "its own measures"),
        (("zeroshot", place / "run", "--data", tmp_path, "--dataset", "icm"), "--task matching"),
        (("dataset", "muge"), "no PATH"),
        (("dataset", "mugee", tmp_path), "did you mean muge?"),
    ):
        code, told = run(*line)
        assert code == 2, told
        assert said in told
        assert "\n" not in told
    with pytest.raises(UsageError, match="no such file"):
        app(["dataset", "muge", str(tmp_path / "nowhere")], prog_name="vlcli", standalone_mode=False)


def test_damaged_files_are_exit_3(place, tmp_path):
    muge(tmp_path)
    with (tmp_path / "MR_valid_queries.jsonl").open("a") as file:
        file.write('{"query_id"')
    code, told = run("retrieve", place / "run", "--dataset", "muge", "--data", tmp_path, "--device", "cpu")
    assert code == 3
    assert told.startswith(f"{tmp_path}/MR_valid_queries.jsonl:5: not JSON")


def test_the_sets_are_listed(capsys):
    assert run("dataset") == (0, "")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18
    assert lines[0].startswith("muge ")

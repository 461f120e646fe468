"""`finetune --task linear-probe`, and what `zeroshot` says of the classifier that it makes."""

import json

import pytest
import torch
from labelled_squares import COLOURS, model_of, read, run, squares, write
from PIL import Image

from vlcli.evaluation.probes.features import image_vectors
from vlcli.evaluation.probes.labelled import Labelled
from vlcli.evaluation.probes.linear import linear_probe
from vlcli.models.checkpoint import load_classifier, save_checkpoint
from vlcli.models.quickcheck import check_checkpoint
from vlcli.shards.pairs import load_pairs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Noisy squares of three colours in three tables, and a tower that learnt nothing."""
    here = tmp_path_factory.mktemp("classes")
    save_checkpoint(model_of(), here / "dual", recipe={}, lineage={})
    squares(here, {"train": 18, "val": 9, "test": 9}, 90)
    return here


def probe(place, *more):
    rows = ("--data", place / "train.jsonl", "--val", place / "val.jsonl")
    return ("finetune", place / "dual", "--task", "linear-probe", *rows, *more)


def test_the_probe_that_is_kept_is_that_of_the_published_search(place, tmp_path, capsys):
    out = tmp_path / "probe"
    assert run(*probe(place, "--test", place / "test.jsonl", "-o", out)) == (0, "")
    said = capsys.readouterr()
    assert "(val)" in said.err
    assert "top-1" in said.out
    config = json.loads((out / "config.json").read_text())
    assert config["kind"] == "classifier"
    assert config["architecture"]["labels"] == sorted(COLOURS)
    assert not check_checkpoint(out, deep=True).findings

    model = model_of()
    data = {}
    for name in ("train", "val"):
        table = load_pairs([str(place / f"{name}.jsonl")], columns=("label",), need_text=False)
        labels = torch.tensor([sorted(COLOURS).index(label) for label in table.frame["label"]])
        data[name] = Labelled(image_vectors(model, table, "pre"), labels)
    expected = linear_probe(data["train"], data["val"], 3)
    found = load_classifier(out)
    torch.testing.assert_close(found.head.weight.double(), expected.head.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.head.bias.double(), expected.head.bias, rtol=1e-5, atol=1e-6)
    trials = read(out / "trials.jsonl")
    assert {trial["l2"]: trial["top1"] / 100 for trial in trials} == pytest.approx(expected.tried, abs=1e-6)
    assert [trial["l2"] for trial in trials if trial["chosen"]] == [expected.l2]
    assert {trial["on"] for trial in trials} == {"val"}


def test_zeroshot_measures_the_classifier_as_a_literal_loop_does(place, tmp_path, capsys):
    out = tmp_path / "probe"
    assert run(*probe(place, "--l2", "0.1", "-o", out, "-q")) == (0, "")
    assert not (out / "trials.jsonl").exists()
    capsys.readouterr()
    assert run("zeroshot", out, "--data", place / "test.jsonl", "--json") == (0, "")
    told = json.loads(capsys.readouterr().out)
    model = load_classifier(out)
    right = 0
    for row in read(place / "test.jsonl"):
        with Image.open(place / row["image"]) as picture, torch.no_grad():
            logits = model(model.preprocess(picture)[None])[0]
        right += model.config.labels[int(logits.argmax())] == row["label"]
    assert told["top1"] == pytest.approx(100 * right / 9)
    assert (told["n"], told["classes"], told["similarity"]) == (9, 3, "linear head")
    assert told["ci95"]["top1"][0] <= told["top1"] <= told["ci95"]["top1"][1]


def test_what_cannot_be_is_one_line(place, tmp_path):
    out = ("-o", tmp_path / "out")
    rows = read(place / "val.jsonl")
    for row in rows:
        row["image"] = str(place / row["image"])
    write(tmp_path / "more.jsonl", [*rows[1:], {**rows[0], "label": "mauve"}])
    write(tmp_path / "none.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in rows])
    write(tmp_path / "gap.jsonl", [*rows[1:], {**rows[0], "label": None}])
    write(tmp_path / "one.jsonl", [{**row, "label": "red"} for row in rows[::-1]])
    task = ("finetune", place / "dual", "--task", "linear-probe", *out)
    train, val = ("--data", place / "train.jsonl"), ("--val", place / "val.jsonl")
    for line, code, said in (
        ((*task, *train, "--val", tmp_path / "more.jsonl"), 3, "'mauve' is in no training row"),
        ((*task, "--data", tmp_path / "one.jsonl", *val), 3, "nothing to tell apart"),
        ((*task, "--data", tmp_path / "none.jsonl", *val), 2, "label"),
        ((*task, "--data", tmp_path / "gap.jsonl", *val), 3, "no label"),
        ((*task, *train, *val, "--test", place / "val.jsonl"), 2, "val and test rows are the same"),
        ((*task, *train, "--val", place / "train.jsonl"), 2, "train and val rows are the same"),
        ((*task, *train), 2, "--l2"),
        ((*task, *val), 2, "--data"),
        ((*task, *train, *val, "--resume"), 2, "has no --resume"),
        ((*task, *train, *val, "--seed", "1"), 2, "has no --seed"),
        (("finetune", place / "dual", *train, "--l2", "1"), 2, "has no --l2"),
    ):
        found, told = run(*line)
        assert (found, said in told) == (code, True), (line, found, told)
        assert "\n" not in told
        assert not (tmp_path / "out").exists()


def test_a_classifier_goes_where_it_belongs(place, tmp_path):
    out = tmp_path / "probe"
    assert run(*probe(place, "--l2", "1", "-o", out, "-q"))[0] == 0
    row = {**read(place / "test.jsonl")[0], "image": str(place / "test-0.png")}
    write(tmp_path / "text.jsonl", [{**row, "text": "红色"}])
    for line, said in (
        (probe(place, "-o", out), "exists; --force"),
        (("retrieve", out, "--data", tmp_path / "text.jsonl"), "kind 'classifier'"),
        (("zeroshot", out, "--data", place / "test.jsonl", "--prompts", "none"), "--prompts is for models"),
    ):
        code, told = run(*line)
        assert (code, said in told) == (2, True), told
    write(tmp_path / "other.jsonl", [{**row, "label": "mauve"}])
    code, told = run("zeroshot", out, "--data", tmp_path / "other.jsonl")
    assert (code, "'mauve' has no name in the classifier's 3" in told) == (3, True)

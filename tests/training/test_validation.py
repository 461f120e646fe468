"""Validation by retrieval and by zero-shot: the numbers of the evaluation commands, and the best checkpoint by them."""

import dataclasses
import json

import orjson
import pytest
import torch
from training_cases import CORPUS, RENAMES, Silent, pairs, recipe

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.tasks import Retrieval, classify
from vlcli.models.card import read_results
from vlcli.shards.columns import Column
from vlcli.shards.pairs import load_pairs
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet, load_prompts
from vlcli.training.pretraining import Pretraining
from vlcli.training.validation import Classes, Validation, score_of

PROMPTS = PromptSet("two", ("{}", "一张{}的图片。"))


def labelled(rows=20):
    return load_pairs([str(CORPUS)], renames=RENAMES, head=rows, columns=("group_zh",))


@pytest.fixture(scope="module")
def model(cache):
    torch.manual_seed(0)
    from vlcli.models.dual import DualEncoder

    return DualEncoder(recipe(cache).model)


def test_it_says_what_the_evaluation_commands_say(model):
    table = labelled()
    table.image_ids = list(table.image_ids)
    table.image_ids[3] = table.image_ids[5]  # one picture in two rows: encoded once, classified in both
    table.frame = table.frame.with_columns(table.frame["group_zh"].replace("表情", None))
    classes = Classes.of(table, "group_zh", None, PROMPTS)
    known = [row for row, value in enumerate(table.frame["group_zh"]) if value is not None]
    assert classes.rows == known
    validation = Validation(table, store=None, store_rows=None, precision="fp32", classes=classes)
    found = validation(model)
    assert model.training, "the model returns to training"
    part = dataclasses.replace(
        table,
        ids=[table.ids[row] for row in known],
        image_ids=[table.image_ids[row] for row in known],
        texts=[table.texts[row] for row in known],
        groups=[None] * len(known),
    )
    part.frame = table.frame[known]
    first = {image: row for row, image in reversed(list(enumerate(table.image_ids)))}
    part.image_bytes = lambda i: table.image_bytes(first[part.image_ids[i]])
    model.eval()
    literal = classify(model, part, PROMPTS, column="group_zh", bootstrap=0)
    assert found["zeroshot"] == {
        name: literal[name] for name in ("n", "classes", "top1", "top5", "mean_per_class")
    }
    recalls = Retrieval(model, table, load_prompts("none")).metrics(bootstrap=0)
    assert {name: found[name] for name in ("i2t", "t2i", "MR")} == {
        name: recalls[name] for name in ("i2t", "t2i", "MR")
    }
    retrieved, named = validation.results(model, found)
    assert retrieved["MR"] == found["MR"]
    assert "zeroshot" not in retrieved
    assert (named["labels"], named["prompts"], named["top1"]) == (
        "values of group_zh",
        "two",
        found["zeroshot"]["top1"],
    )
    model.train()


def test_rows_without_a_text_are_classified_alone(model):
    table = labelled()
    classes = Classes.of(table, "group_zh", None, PROMPTS)
    whole = Validation(table, store=None, store_rows=None, precision="fp32", classes=classes)(model)
    table.texts = [texts if row < 7 else [] for row, texts in enumerate(table.texts)]
    some = Validation(table, store=None, store_rows=None, precision="fp32", classes=classes)
    found = some(model)
    assert found["zeroshot"] == whole["zeroshot"]
    assert found["images"] == 7
    few = labelled(7)
    assert found["MR"] == Validation(few, store=None, store_rows=None, precision="fp32")(model)["MR"]
    table.texts = [[] for _ in table.texts]
    none = Validation(table, store=None, store_rows=None, precision="fp32", classes=classes)
    assert none(model) == {"zeroshot": whole["zeroshot"]}
    assert len(none.results(model, none(model))) == 1


def test_classes_that_cannot_be():
    table = labelled()
    with pytest.raises(InputError, match="has no name in short"):
        Classes.of(table, "group_zh", LabelSet("short", {"表情": "表情"}), PROMPTS)
    table.frame = table.frame.with_columns(
        table.frame["group_zh"].map_elements(lambda _: None, return_dtype=str)
    )
    with pytest.raises(InputError, match="no row has a group_zh"):
        Classes.of(table, "group_zh", None, PROMPTS)


def test_other_names_or_templates_are_other_classes():
    table = labelled()
    one = Classes.of(table, "group_zh", None, PROMPTS)
    assert one.fingerprint == Classes.of(table, "group_zh", None, PROMPTS).fingerprint
    assert (
        one.fingerprint != Classes.of(table, "group_zh", None, PromptSet("two", ("{}", "{}。"))).fingerprint
    )
    names = {name: f"{name}图" for name in one.labels.names}
    assert one.fingerprint != Classes.of(table, "group_zh", LabelSet("x", names), PROMPTS).fingerprint


def test_score_of():
    found = {"MR": 40.0, "i2t": {"R@1": 20.0}, "t2i": None, "zeroshot": {"top1": 60.0}}
    assert score_of(found, "MR") == 40
    assert score_of(found, "i2t.R@1") == 20
    assert score_of(found, "zeroshot.top1") == 60
    assert score_of(found, "t2i.R@1") == score_of({}, "zeroshot.top1") == float("-inf")


def test_zero_shot_chooses_the_best_checkpoint_and_stands_on_its_card(table, cache, tmp_path):
    out, rows = tmp_path / "run", labelled()
    classes = Classes.of(rows, "group_zh", None, PROMPTS)
    chosen = recipe(cache, "train.best=zeroshot.top1", "train.keep=9")
    run = Pretraining(chosen, table, out, Silent(), validation=rows, classes=classes, device="cpu")
    result = run.run()
    lines = [orjson.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    scores = {line["step"]: line["val"]["zeroshot"]["top1"] for line in lines if "val" in line}
    assert sorted(scores) == [4, 8, 12]
    first = min(step for step, score in scores.items() if score == max(scores.values()))
    assert result["best"] == max(scores.values())
    assert (out / "best").readlink().name == f"step-{first:08d}"
    named = [one for one in read_results(out / "best") if "top1" in one]
    assert [(one["top1"], one["prompts"]) for one in named] == [(result["best"], "two")]
    assert "| top-1 |" in (out / "best" / "README.md").read_text()
    assert (
        json.loads((out / "best" / "config.json").read_text())["recipe"]["train"]["best"] == "zeroshot.top1"
    )
    other = Classes.of(rows, "group_zh", None, load_prompts("none"))
    with pytest.raises(UsageError, match="--resume: classes was"):
        Pretraining(chosen, table, out, Silent(), validation=rows, classes=other, device="cpu", resume=True)


def test_what_a_log_line_says(table, cache, tmp_path):
    out = tmp_path / "run"
    Pretraining(recipe(cache, "schedule.steps=2"), table, out, Silent(), device="cpu").run()
    (line, _) = [orjson.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert set(line) == {
        *("step", "epoch", "loss", "chance_loss", "i2t_loss", "t2i_loss", "temperature", "lr", "grad_norm"),
        *(
            "collisions",
            "collision_share",
            "pairs_per_second",
            "data_wait",
            "data_seconds",
            "compute_seconds",
        ),
    }
    assert line["chance_loss"] == pytest.approx(torch.log(torch.tensor(16.0)).item())
    assert line["collision_share"] == pytest.approx(line["collisions"] / (16 * 15))
    step = line["data_seconds"] + line["compute_seconds"]
    assert line["pairs_per_second"] == pytest.approx(16 / step)
    assert line["data_wait"] == pytest.approx(line["data_seconds"] / step)


def test_collisions_of_a_batch_are_counted(cache, tmp_path):
    table = pairs()
    table.texts = Column(["同"] if row % 2 else [f"字{row}"] for row in range(len(table)))
    table.groups = Column([None] * len(table))
    out = tmp_path / "run"
    run = Pretraining(
        recipe(cache, "schedule.steps=1", "data.draw=['text']"), table, out, Silent(), device="cpu"
    )
    run.run()
    line = orjson.loads((out / "metrics.jsonl").read_bytes())
    same = sum(int(row) % 2 for row in run.loader.order.step(0).rows)
    assert line["collisions"] == same * (same - 1) > 0

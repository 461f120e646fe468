"""From pre-training to fine-tuning, re-ranking, matching and figures: one tiny R2D2 through every command."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.evaluation.embed import decode_row
from vlcli.evaluation.matching import row_scores
from vlcli.models.dual import DualEncoder
from vlcli.models.r2d2 import Pairs, TextStates, image_states
from vlcli.shards.pairs import load_pairs
from vlcli.training.finetuning import started

sys.path.append(str(Path(__file__).parents[1] / "training"))
from r2d2_cases import RANKING, TINY
from training_cases import CORPUS, RENAMES

ROWS = ("--data", str(CORPUS), "--head", "18", "--map", "text=name,text_candidates=keywords")


def run(*arguments):
    """(exit code, line of the error)."""
    try:
        app([str(argument) for argument in arguments], prog_name="vlcli", standalone_mode=False)
    except VlcliError as error:
        return error.exit_code, str(error)
    return 0, ""


def sets(*overrides):
    return [part for override in overrides for part in ("--set", override)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    out = tmp_path_factory.mktemp("r2d2") / "run"
    cache = tmp_path_factory.mktemp("cache")
    overrides = sets(*TINY, *RANKING, f"data.cache={cache}", "schedule.steps=2")
    assert run("pretrain", "--recipe", "emoji-r2d2", *ROWS, *overrides, "-o", out, "-q") == (0, "")
    return out


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Pairs that match and pairs that do not."""
    table = pl.read_parquet(CORPUS).head(18)
    names = table["name"].to_list()
    rows = []
    for i in range(18):
        rows.append({"image": f"{CORPUS}#{i}", "text": names[i], "label": 1})
        rows.append({"image": f"{CORPUS}#{i}", "text": names[(i + 7) % 18], "label": 0})
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def last(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_what_is_ranked_anew_is_what_the_cross_encoders_say(pretrained, tmp_path, capsys):
    assert run("retrieve", pretrained, *ROWS, "--bootstrap", "0", "--json")[0] == 0
    plain = last(capsys)
    best = tmp_path / "best.jsonl"
    options = ("--rerank", "100", "--predictions", best, "--bootstrap", "0", "--json")
    assert run("retrieve", pretrained, *ROWS, *options) == (0, "")
    found = last(capsys)
    assert found["rerank"] == {"k": 100, "score": "match"}
    assert "rerank" not in plain
    model, table = vlcli.load(pretrained), load_pairs([str(CORPUS)], renames=RENAMES, head=18)
    line = json.loads(best.read_text().splitlines()[0])
    row = list(table.image_ids).index(line["image_id"])
    pixels = model.preprocess(decode_row(table, row))
    with torch.no_grad():
        states = image_states(model.image_features(pixels[None]))
        for text, score in zip(line["texts"], line["scores"], strict=True):
            ids, mask = model.tokenize([text])
            texts = TextStates(model.text_states(ids, mask), mask)
            pair = Pairs(torch.tensor([0]), torch.tensor([0]))
            assert model.ranking(texts, states, pair).probability.item() == pytest.approx(score, abs=2e-6)
    assert line["scores"] == sorted(line["scores"], reverse=True)
    for score in ("match+similarity", "posterior"):
        assert run("retrieve", pretrained, *ROWS, "--rerank", "3", "--rerank-score", score, "--json")[0] == 0
        assert last(capsys)["rerank"] == {"k": 3, "score": score}


def test_auc_and_predictions_of_matching(pretrained, labelled, tmp_path, capsys):
    out = tmp_path / "scores.jsonl"
    options = ("--data", labelled, "--task", "matching")
    assert run("zeroshot", pretrained, *options, "--json") == (0, "")
    found = last(capsys)
    assert (found["task"], found["n"], found["positives"]) == ("matching", 36, 18)
    assert found["ci95"]["auc"][0] <= found["auc"] <= found["ci95"]["auc"][1]
    from torchmetrics.functional.classification import binary_auroc

    model, table = vlcli.load(pretrained), load_pairs([str(labelled)])
    scores = row_scores(model, table, batch_size=5)
    labels = torch.tensor([1, 0] * 18)
    assert found["auc"] == pytest.approx(
        100 * binary_auroc(torch.from_numpy(scores), labels).item(), abs=1e-3
    )
    blind = tmp_path / "blind.jsonl"
    rows = [{k: v for k, v in json.loads(line).items() if k != "label"} for line in labelled.open()]
    blind.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("zeroshot", pretrained, "--data", blind, "--task", "matching", "--predictions", out) == (0, "")
    said = [json.loads(line) for line in out.open()]
    np.testing.assert_allclose([line["score"] for line in said], scores, atol=2e-6)
    assert said[0].keys() == {"id", "image_id", "text", "score"}


@pytest.mark.parametrize("task", ["retrieval", "matching"])
def test_finetune_goes_on_from_the_checkpoint(task, pretrained, labelled, tmp_path, capfd):
    out = tmp_path / "run"
    data = ("--data", labelled) if task == "matching" else ROWS
    val = ("--val", labelled) if task == "matching" else ("--val", CORPUS)
    if task == "retrieval":
        few = tmp_path / "val.jsonl"
        rows = pl.read_parquet(CORPUS).head(6)
        lines = [
            json.dumps({"image": f"{CORPUS}#{i}", "name": rows["name"][i], "keywords": []}) for i in range(6)
        ]
        few.write_text("\n".join(lines) + "\n")
        val = ("--val", few)
    settings = sets(
        "schedule.steps=3",
        "schedule.warmup_steps=0",
        "train.log_every=1",
        "train.evaluate_every=2",
        "train.precision=fp32",
        "data.workers=0",
        f"data.cache={tmp_path / 'cache'}",
    )
    options = ("--task", task, *data, *val, *settings, "--batch-size", "6", "-o", out)
    assert run("finetune", pretrained, *options) == (0, "")
    said = capfd.readouterr().err
    assert "stays behind: " in said
    assert "ranking.mask_head" in said
    assert said.index("step 0: ") < said.index("step 2: ")
    before, after = vlcli.load(pretrained), vlcli.load(out / "last")
    assert after.config.kind == "r2d2"
    assert after.config.ranking.mask_head is False
    old, new = before.state_dict(), after.state_dict()
    moved = {name for name, x in new.items() if not torch.equal(x, old[name])}
    assert any(name.startswith("ranking.text_cross") for name in moved)
    assert not any(name.startswith("image.") for name in moved)
    assert ("log_scale" in moved) == (task == "retrieval")
    code, line = run("finetune", pretrained, *options, "--resume")
    assert (code, line) == (0, "")


def test_positions_come_along_to_another_resolution():
    from vlcli.models.config import DualEncoderConfig

    table = {
        "dim": 8,
        "similarity": "global",
        "image": {"name": "test_vit", "preprocess": {"size": 64}},
        "text": {"width": 16, "layers": 1, "heads": 2},
    }
    source = DualEncoder(DualEncoderConfig.model_validate(table))
    table["image"]["preprocess"]["size"] = 96
    model, left = started(source, DualEncoderConfig.model_validate(table), Path("x"))
    assert left == []
    assert model.image.body.pos_embed.shape[1] - source.image.body.pos_embed.shape[1] == 36 - 16
    assert torch.equal(model.text_projection.weight, source.text_projection.weight)
    table["image"]["preprocess"]["size"] = 100
    with pytest.raises(UsageError, match="no whole number of patches of 16"):
        started(source, DualEncoderConfig.model_validate(table), Path("x"))
    table["image"] = {"name": "vit_tiny_patch16_224", "preprocess": {"size": 96}}
    with pytest.raises(InputError, match="does not fit"):
        started(source, DualEncoderConfig.model_validate(table), Path("x"))


def test_where_an_r2d2_looks(pretrained, tmp_path, capsys):
    out = tmp_path / "fox.png"
    options = ("--image", f"{CORPUS}#3", "--text", "狐狸", "--prompt", "雪地里的{}", "-o", out)
    assert run("visualize", pretrained, *options, "--method", "entity", "--json") == (0, "")
    figure = last(capsys)["figures"][0]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert figure["layer"] == 1
    assert [figure["tokens"][p] for p in figure["label_positions"]] == ["狐", "狸"]
    looks = np.array(figure["similarity"])
    assert looks.shape == tuple(figure["grid"])
    assert 0 < looks.sum() < 1, "a share of the attention, without what the whole picture gets"
    model = vlcli.load(pretrained)
    whole = model.ranking.text_cross.layers[0]
    table = load_pairs([str(CORPUS)], renames=RENAMES, head=4)
    ids, mask = model.tokenize(["雪地里的狐狸"])
    with torch.no_grad():
        hidden = model.text_states(ids, mask)
        states = image_states(model.image_features(model.preprocess(decode_row(table, 3))[None]))[0]
        read = whole.own_side(hidden, mask, None)[0]
        query, key = whole.other.query(read), whole.other.key_value(states).chunk(2, -1)[0]
        size = query.shape[1] // whole.other.heads
        heads = [
            (query[:, h : h + size] @ key[:, h : h + size].T / size**0.5).softmax(-1)
            for h in range(0, query.shape[1], size)
        ]
        want = torch.stack(heads).mean(0)[figure["label_positions"]].mean(0)[1:]
    np.testing.assert_allclose(looks.ravel(), want.numpy(), atol=2e-6)


@pytest.fixture(scope="module")
def dual(tmp_path_factory):
    """A dual encoder of tokens."""
    out = tmp_path_factory.mktemp("dual") / "run"
    settings = sets(
        *(x for x in TINY if "r2d2" not in x and "encoder" not in x),
        "schedule.steps=1",
        f"data.cache={out}.cache",
        "model.image_projection.hidden=8",
    )
    assert run("pretrain", "--recipe", "emoji-lit-filip", *ROWS, *settings, "-o", out, "-q") == (0, "")
    return out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("retrieve", "DUAL", *ROWS, "--rerank", "5"), 2, "no cross encoders"),
        (("retrieve", "R2D2", *ROWS, "--rerank", "imagenet"), 2, "neither a number above 0"),
        (("retrieve", "R2D2", *ROWS, "--rerank-score", "posterior"), 2, "is of --rerank"),
        (("retrieve", "R2D2", *ROWS, "--rerank", "5", "--query", "x"), 2, "does not go with"),
        (("zeroshot", "DUAL", "--data", "PAIRS", "--task", "matching"), 2, "no cross encoders"),
        (("zeroshot", "R2D2", *ROWS, "--task", "matching", "--label-column", "group_zh"), 3, "not 0 or 1"),
        (
            ("zeroshot", "R2D2", *ROWS, "--task", "simlex", "--predictions", "x.jsonl"),
            2,
            "does not go with --task simlex",
        ),
        (("finetune", "DUAL", *ROWS, "--recipe", "r2d2-retrieval"), 2, "the checkpoint is a dual encoder"),
        (("finetune", "R2D2", *ROWS, "--recipe", "r2d2-matching"), 2, "is not of --task retrieval"),
        (("finetune", "R2D2", *ROWS, "--recipe", "r2d2-retrival"), 2, "did you mean 'r2d2-retrieval'"),
        (("visualize", "DUAL", "--image", f"{CORPUS}#3", "--text", "x", "--method", "entity"), 2, "has none"),
        (
            (
                "visualize",
                "R2D2",
                "--image",
                f"{CORPUS}#3",
                "--text",
                "x",
                "--method",
                "entity",
                "--layer",
                "2",
            ),
            2,
            "1 layers",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments, code, words, pretrained, dual, labelled, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"DUAL": dual, "R2D2": pretrained, "PAIRS": labelled}
    found = run(*(places.get(argument, argument) for argument in arguments))
    assert found[0] == code
    assert words in found[1]
    assert "\n" not in found[1]
    assert not list(tmp_path.iterdir())


def test_pairs_that_all_match_have_no_auc(pretrained, labelled, tmp_path):
    file = tmp_path / "all.jsonl"
    file.write_text("".join(line for line in labelled.open() if json.loads(line)["label"]))
    code, words = run("zeroshot", pretrained, "--data", file, "--task", "matching")
    assert (code, "nothing to tell apart" in words) == (3, True)


def test_the_recipes_of_fine_tuning_hold():
    from vlcli.models.config import DualEncoderConfig
    from vlcli.recipes import FINETUNE, load_finetune_on_its_paper, load_finetune_recipe, names

    assert {"r2d2-retrieval", "r2d2-matching", "r2d2-caption", "filip-retrieval"} <= set(names(FINETUNE))
    for name in names(FINETUNE):
        assert load_finetune_on_its_paper(name).source
    towers = DualEncoderConfig.model_validate(
        {"similarity": "global", "text": {"kind": "transformers", "name": "bert-mini", "pooling": "cls"}}
    )
    with pytest.raises(UsageError, match="is a dual encoder"):
        load_finetune_recipe("r2d2-matching", towers.model_dump(mode="json"))

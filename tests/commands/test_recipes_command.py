"""vlcli recipes: what show says of a model's cost, and that what it prints is the recipe."""

import json
import tomllib

import pytest

from vlcli.cli import app
from vlcli.errors import UsageError
from vlcli.recipes import FINETUNE, load_distill_recipe, load_recipe, names

SMALL = ["--set", "model.image.name=vit_tiny_patch16_224", "--set", "model.text.layers=2"]


def said(capsys, *arguments):
    app(["recipes", *arguments], prog_name="vlcli", standalone_mode=False)
    out, err = capsys.readouterr()
    assert not err
    return out


def test_show_prints_the_cost_as_a_comment_before_the_recipe(capsys, tmp_path):
    """ViT-Tiny: 196 patches; text 2 layers of 768 over 21,128 pieces and 32 positions; by hand."""
    out = said(capsys, "show", "lit-wukong", *SMALL)
    comment = [line for line in out.splitlines() if line.startswith("#")]
    text = 21128 * 768 + 32 * 768 + 2 * (12 * 768**2 + 13 * 768) + 2 * 768
    rows = {line.split()[1]: line.split()[2:] for line in comment[1:8]}
    assert rows["text"] == [f"{text:,}", f"{text:,}"]
    assert rows["image"][1] == "0"
    assert rows["image_projection"] == [f"{192 * 768:,}"] * 2
    assert int(rows["all"][1].replace(",", "")) == sum(
        int(row[1].replace(",", "")) for name, row in rows.items() if name != "all"
    )
    assert "tokens an image: 196, of which token reduction makes 24; a text: up to 32" in comment[8]
    layers = 2 * 32 * 2 * (12 * 768**2 + 2 * 32 * 768) + 2 * 32 * 768**2
    assert f", text {layers / 1e9:.2f};" in comment[9]
    assert f"; {2 * 24 * 32 * 768 * 8192 / 1e9:.2f} more to compare it with a batch of 8192" in comment[9]
    (tmp_path / "shown.toml").write_text(out, encoding="utf-8")
    wanted = load_recipe("lit-wukong", SMALL[1::2])
    assert load_recipe(str(tmp_path / "shown.toml")) == wanted
    assert tomllib.loads(out)["model"]["text"]["layers"] == 2
    assert said(capsys, "validate", str(tmp_path / "shown.toml")) == "lit-wukong: ok\n"


def test_show_as_json(capsys):
    found = json.loads(said(capsys, "show", "filip-base", *SMALL, "--json"))["filip-base"]
    assert found["model"]["text"]["layers"] == 2
    assert found["cost"]["tokens"] == found["cost"]["compared"] == 196
    assert (
        found["cost"]["trainable"]
        == found["cost"]["parameters"]
        == sum(part["parameters"] for part in found["cost"]["parts"].values())
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.image.name=no_such_tower", "recipe lit-clip: no timm model is called 'no_such_tower'"),
        (
            "model.image_projection.kind=none",
            'recipe lit-clip: image_projection = "none": the tower is 192 wide',
        ),
        (
            'model.train=[{pattern = "txt[.].*", rate = 0.1}, {pattern = ".*", rate = 1.0}]',
            "recipe lit-clip: model.train[0] 'txt[.].*': it matches no parameter",
        ),
        (
            'model.train=[{pattern = "text[.].*", rate = 0.1}]',
            "recipe lit-clip: model.train: no pattern covers the parameter log_scale",
        ),
    ],
)
def test_validate_finds_what_only_the_model_shows(capsys, setting, message):
    with pytest.raises(UsageError) as refused:
        said(capsys, "validate", "lit-clip", *SMALL, "--set", setting)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_recipes_of_finetune_are_listed_and_tried_on_a_model_of_their_paper(capsys):
    listed = [line.split()[0] for line in said(capsys, "list").splitlines()]
    of_finetune = [name for name in listed if name.startswith("finetune/")]
    assert [name.removeprefix("finetune/") for name in of_finetune] == names(FINETUNE)
    assert said(capsys, "validate", *of_finetune).splitlines() == [f"{name}: ok" for name in of_finetune]
    shown = json.loads(said(capsys, "show", "finetune/filip-retrieval", "--json"))["finetune/filip-retrieval"]
    assert shown["model"]["image"]["preprocess"]["size"] == 392
    assert shown["model"]["text"] == load_recipe("filip-base").model.model_dump(mode="json")["text"]


@pytest.mark.parametrize("load", [load_recipe, load_distill_recipe])
def test_a_recipe_of_finetune_is_of_no_other_command(load):
    with pytest.raises(UsageError, match="finetune/align-coco starts from a checkpoint"):
        load("finetune/align-coco")


def test_an_unknown_recipe_of_finetune_names_the_nearest(capsys):
    with pytest.raises(UsageError, match=r"no recipe is called 'align-cocoa'.*align-coco"):
        said(capsys, "show", "finetune/align-cocoa")

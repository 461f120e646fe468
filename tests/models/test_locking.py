"""First match wins; what matches nothing and what nothing covers are errors; locked parts do not move."""

import pytest
import torch
from tiny_models_for_checkpoints import tiny_model

from vlcli.errors import UsageError
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.schemas.parts import OptimizerConfig
from vlcli.training.optimizers import parameter_groups

REST = {"pattern": ".*", "rate": 1.0}


def on_meta(image=None, text=None, **architecture):
    image = {"name": "vit_tiny_patch16_224", "locked": False, **(image or {})}
    text = {"width": 32, "layers": 4, "heads": 2, **(text or {})}
    with torch.device("meta"):
        return DualEncoder(DualEncoderConfig.model_validate({"image": image, "text": text, **architecture}))


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_first_match_wins():
    rules = [
        {"pattern": r"text\.blocks\.1\..*", "rate": 0.25},
        {"pattern": r"text\.blocks\..*", "rate": 0.5},
        {"pattern": r"image\..*", "rate": "locked"},
        REST,
    ]
    model = on_meta(train=rules)
    rates = model.rates
    assert rates["text.blocks.1.fc.weight"] == 0.25
    assert rates["text.blocks.0.fc.weight"] == rates["text.blocks.3.ln_1.bias"] == 0.5
    assert rates["log_scale"] == rates["text.token_embedding.weight"] == 1.0
    assert {name for name, rate in rates.items() if not rate} == {n for n in rates if n.startswith("image.")}
    assert learning(model) == {name for name, rate in rates.items() if rate}


def test_a_pattern_means_the_whole_name():
    with pytest.raises(UsageError, match=r"model.train\[0\] 'text': it matches no parameter"):
        on_meta(train=[{"pattern": "text", "rate": 0.5}, REST])


def test_a_pattern_behind_one_that_takes_all_is_an_error():
    with pytest.raises(UsageError, match=r"model.train\[1\] .* earlier patterns take all that it matches"):
        on_meta(train=[REST, {"pattern": r"text\..*", "rate": 0.5}])


def test_a_parameter_that_nothing_covers_is_named():
    with pytest.raises(UsageError, match="no pattern covers the parameter log_scale"):
        on_meta(train=[{"pattern": r"(image|text).*", "rate": 1.0}])
    model = on_meta(train=[{"pattern": r"(image|text).*", "rate": 1.0}], temperature={"learnable": False})
    assert "log_scale" not in learning(model)


def test_the_short_forms_stand_behind_the_list():
    rules = [{"pattern": r"image\.body\.norm\..*", "rate": 0.1}, {"pattern": r"(?!image\.).*", "rate": 1.0}]
    model = on_meta(image={"locked": True}, train=rules)
    assert {n for n in learning(model) if n.startswith("image.")} == {
        "image.body.norm.weight",
        "image.body.norm.bias",
    }
    with pytest.raises(UsageError, match=r"model\.image\.locked: earlier patterns take all"):
        on_meta(image={"locked": True}, train=[REST])


def test_locked_towers():
    model = on_meta(image={"locked": True}, text={"locked": True})
    assert learning(model) == {"log_scale", "image_projection.weight", "text_projection.weight"}
    assert (model.image_locked, model.text_locked) == (True, True)
    assert trainable_report(model)["text"]["trainable"] == 0


@pytest.mark.parametrize(
    ("name", "layer", "locked", "free"),
    [
        ("vit_tiny_patch16_224", 10, "blocks.9.mlp.fc2.bias", "blocks.10.norm1.weight"),
        ("vit_tiny_patch16_224", 0, "pos_embed", "blocks.0.norm1.weight"),
        ("vit_tiny_patch16_224", 12, "blocks.11.mlp.fc2.bias", "norm.weight"),
        (
            "swin_tiny_patch4_window7_224",
            10,
            "layers.3.downsample.norm.weight",
            "layers.3.blocks.0.norm1.weight",
        ),
        (
            "swin_tiny_patch4_window7_224",
            1,
            "layers.0.blocks.0.mlp.fc2.bias",
            "layers.0.blocks.1.norm1.weight",
        ),
        ("efficientnet_lite0", 3, "blocks.1.1.bn3.bias", "blocks.2.0.conv_pw.weight"),
        ("resnet18", 4, "layer2.1.bn2.bias", "layer3.0.conv1.weight"),
    ],
)
def test_unlocked_from_a_layer_of_the_image_tower(name, layer, locked, free):
    """What stands before layer N in the order of definition is locked, what stands there and behind it is not."""
    model = on_meta(image={"name": name, "locked": True, "unlocked_from": layer})
    names = [n.removeprefix("image.body.") for n, _ in model.named_parameters() if n.startswith("image.")]
    border = names.index(free)
    assert names.index(locked) < border
    found = [name in {n.removeprefix("image.body.") for n in learning(model)} for name in names]
    assert found == [False] * border + [True] * (len(names) - border)
    assert not model.image_locked


def test_unlocked_from_a_layer_of_the_text_tower():
    model = on_meta(text={"locked": True, "unlocked_from": 3})
    text = {n for n in learning(model) if n.startswith("text.")}
    assert all(n.startswith(("text.blocks.3.", "text.ln_final.")) for n in text)
    assert len(text) == 14
    encoder = {"kind": "transformers", "name": "bert-mini", "width": 256, "heads": 4, "head": {"width": 8}}
    model = on_meta(text={**encoder, "locked": True, "unlocked_from": 2})
    text = {n for n in learning(model) if n.startswith("text")}
    assert {n.split(".")[4] for n in text if n.startswith("text.body")} == {"2", "3"}
    assert {"text_head.fc.weight", "text_head.norm.bias", "text_projection.weight"} <= text
    model = on_meta(text={**encoder, "locked": True})
    assert {n for n in learning(model) if n.startswith("text")} == {"text_projection.weight"}


def test_what_is_unlocked_may_have_rates_of_its_own():
    rules = [
        {"pattern": r"text\.(blocks\.3|ln_final)\..*", "rate": 0.5},
        {"pattern": r"(?!text\.).*", "rate": 1.0},
    ]
    model = on_meta(text={"locked": True, "unlocked_from": 3}, train=rules)
    assert model.rates["text.blocks.3.fc.weight"] == 0.5
    assert model.rates["text.blocks.2.fc.weight"] == 0.0


def test_a_layer_that_is_not_there():
    with pytest.raises(UsageError, match=r"image.unlocked_from is 13: the tower has 12 layers"):
        on_meta(image={"locked": True, "unlocked_from": 13})


def test_groups_of_the_optimizer_have_one_rate_and_one_decay():
    rules = [{"pattern": r"image\..*", "rate": 0.1}, {"pattern": r"text\.tok.*", "rate": "locked"}, REST]
    model = on_meta(train=rules)
    groups, report = parameter_groups(model, OptimizerConfig(weight_decay=0.3))
    assert [(g["rate"], g["weight_decay"]) for g in groups] == [
        (1.0, 0.3),
        (1.0, 0.0),
        (0.1, 0.3),
        (0.1, 0.0),
    ]
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    for group in groups:
        assert {model.rates[name_of[p]] for p in group["params"]} == {group["rate"]}
    assert sorted(name_of[p] for g in groups for p in g["params"]) == sorted(learning(model))
    assert sum(row["parameters"] for row in report) == sum(p.numel() for g in groups for p in g["params"])


def test_locked_layers_stay_in_evaluation_and_do_not_move():
    torch.manual_seed(0)
    image = {
        "name": "efficientnet_lite0",
        "preprocess": {"size": 64},
        "locked": True,
        "unlocked_from": 15,
    }
    model = tiny_model("global", image=image).train()
    body = model.image.body
    assert not body.bn1.training
    assert not body.blocks[0].training
    assert body.blocks[6].training
    assert body.bn2.training
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids, mask = model.tokenize(["狐狸", "一只猫"])
    picture, text, scale = model(ids, mask, pixels=torch.randn(2, 3, 64, 64))
    (picture.pooled @ text.pooled.T * scale).log_softmax(1).diagonal().sum().neg().backward()
    optimizer.step()
    moved = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert not any(
        name.startswith(("image.body.conv_stem", "image.body.bn1", "image.body.blocks.0")) for name in moved
    )
    assert {"image.body.conv_head.weight", "image.body.bn2.running_mean", "text.ln_final.weight"} <= moved

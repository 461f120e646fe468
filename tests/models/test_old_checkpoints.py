"""Checkpoints from before there were other text towers load and give what they gave: defaults are what was then."""

import json

import pytest
import torch
from tiny_models_for_checkpoints import tiny_model

import vlcli
from vlcli.models.checkpoint import save_checkpoint

# The architecture as it was written then, key by key.
OLD = {
    "dim": 16,
    "similarity": "tokenwise",
    "reduction": {"kind": "released", "tokens": 12, "kernel": 3, "gate": "sigmoid"},
    "t2i_special_tokens": "exclude",
    "image": {
        "name": "efficientnet_lite0",
        "locked": True,
        "init": "random",
        "init_page": "",
        "preprocess": {
            "size": 32,
            "fit": "crop",
            "interpolation": "bicubic",
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    },
    "text": {"width": 32, "layers": 1, "heads": 2, "context": 32, "vocabulary": 21128, "dropout": 0.0},
    "image_projection": {"kind": "linear", "hidden": 512, "dropout": 0.0},
    "text_projection": {"kind": "linear", "hidden": 512, "dropout": 0.0},
    "temperature": {"init": 0.07, "learnable": True, "max_scale": 100.0},
}
# The names of the tensors beside the image tower's, which are timm's.
NAMES = {
    "log_scale",
    "image_projection.weight",
    "text_projection.weight",
    "text.token_embedding.weight",
    "text.positional_embedding",
    "text.ln_final.weight",
    "text.ln_final.bias",
    *(
        f"text.blocks.0.{layer}.{kind}"
        for layer in ("ln_1", "qkv", "out", "ln_2", "fc", "proj")
        for kind in ("weight", "bias")
    ),
}


@pytest.mark.parametrize("similarity", ["tokenwise", "global", "reduced"])
def test_an_old_architecture_loads_and_computes_what_the_defaults_compute(tmp_path, similarity):
    torch.manual_seed(0)
    model = tiny_model(similarity).eval()
    save_checkpoint(model, tmp_path / "c", recipe={}, lineage={})
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    config["architecture"] = {**OLD, "similarity": similarity}
    config.pop("layout", None)  # nor was there one
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    again = vlcli.load(tmp_path / "c")
    assert again.config == model.config
    ids, mask = model.tokenize(["狐狸", "一只很长的猫"])
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        a = model.similarity(model.encode_image(pixels), model.encode_text(ids, mask))
        b = again.similarity(again.encode_image(pixels), again.encode_text(ids, mask))
    assert torch.equal(a.i2t, b.i2t)
    assert torch.equal(a.t2i, b.t2i)


def test_tensors_are_called_as_they_were():
    names = set(tiny_model().state_dict())
    assert {name for name in names if not name.startswith("image.body.")} == NAMES


def test_only_the_image_tower_is_locked_as_it_was():
    model = tiny_model()
    free = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert free == NAMES
    assert set(model.rates.values()) == {0.0, 1.0}

"""Priors and decoders as checkpoints: saved and loaded, checked, refused where they are of another kind or damaged."""

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.models import deepcheck
from vlcli.models.card import write_card
from vlcli.models.checkpoint import load_decoder, load_prior
from vlcli.models.checksums import write_checksums
from vlcli.models.diffusion_config import DecoderConfig, DecoderShape, PriorConfig
from vlcli.models.prior import TextCondition
from vlcli.models.quickcheck import check_checkpoint
from vlcli.models.storage import layout_of, layout_of_architecture

sys.path.append(str(Path(__file__).parents[1] / "generation"))
from unclip_cases import decoder, dual, prior, saved

HASH = "a" * 16
PARTS = {"prior": (prior, load_prior), "decoder": (decoder, load_decoder)}


@pytest.mark.parametrize("kind", PARTS)
def test_what_is_saved_is_loaded_and_whole(kind, tmp_path):
    make, load = PARTS[kind]
    model = make(HASH)
    place = saved(model, tmp_path / kind)
    again = load(place)
    assert again.config == model.config
    assert (again.training, len(again.checkpoint_hash)) == (False, 16)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {file.name for file in place.iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((place / "config.json").read_text())
    assert (config["kind"], config["architecture"]["encoder"]) == (kind, HASH)
    write_card(place)
    write_checksums(place)
    for deep in (False, True):
        assert check_checkpoint(place, deep=deep).findings == []
    card = (place / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-to-image" in card
    assert HASH in card
    # built where there is no memory, it has the same tensors
    assert layout_of_architecture(model.config) == layout_of(before)


@pytest.mark.parametrize("kind", PARTS)
def test_it_says_the_same_after_loading(kind, tmp_path):
    make, load = PARTS[kind]
    model = make(HASH)
    again = load(saved(model, tmp_path / kind))
    level = torch.tensor([5, 900])
    if kind == "prior":
        told = TextCondition(torch.randn(2, 12), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool))
        given = (torch.randn(2, 12), level, told)
    else:
        given = (torch.randn(2, 3, 16, 16), level, torch.randn(2, 12))
    assert torch.equal(model(*given), again(*given))


def test_inside_are_diffusers_own_models(tmp_path):
    """The tensors of `body` are those that diffusers saves and loads of the same configuration."""
    for model, theirs in ((prior(HASH), PriorTransformer), (decoder(HASH), UNet2DConditionModel)):
        model.body.save_pretrained(tmp_path / model.kind)
        again = theirs.from_pretrained(tmp_path / model.kind)
        mine = model.body.state_dict()
        assert mine.keys() == again.state_dict().keys()
        assert all(torch.equal(mine[name], x) for name, x in again.state_dict().items())


def test_standardisation_is_saved_and_does_not_learn(tmp_path):
    saved(prior(HASH), tmp_path / "p")
    saved(decoder(HASH), tmp_path / "d")
    mean = torch.linspace(-0.1, 0.1, 12)
    assert torch.equal(load_file(tmp_path / "p" / "model.safetensors")["body.clip_mean"][0], mean)
    assert torch.equal(load_file(tmp_path / "d" / "model.safetensors")["embedding_mean"], mean)
    learns = {name for name, x in load_prior(tmp_path / "p").named_parameters() if x.requires_grad}
    assert not learns & {"body.clip_mean", "body.clip_std"}
    assert "body.prd_embedding" in learns


def test_checkpoints_of_other_kinds_are_refused(tmp_path):
    saved(prior(HASH), tmp_path / "p")
    saved(decoder(HASH), tmp_path / "d")
    saved(dual(), tmp_path / "c")
    with pytest.raises(UsageError, match="of kind 'decoder'; this command wants 'prior'"):
        load_prior(tmp_path / "d")
    with pytest.raises(UsageError, match="of kind 'dual'; this command wants 'decoder'"):
        load_decoder(tmp_path / "c")
    with pytest.raises(UsageError, match="of kind 'prior'; this command wants 'dual' or 'r2d2'"):
        vlcli.load(tmp_path / "p")
    with pytest.raises(UsageError, match="no such checkpoint"):
        load_prior(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", PARTS)
def test_half_written_weights_and_tensors_of_another_shape(kind, tmp_path, capsys):
    make, load = PARTS[kind]
    place = saved(make(HASH), tmp_path / kind)
    file = place / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot read the weights"):
        load(place)
    assert app(["check", str(place)], prog_name="vlcli", standalone_mode=False) == 3
    assert "cut inside tensor" in capsys.readouterr().err
    tensors = {}
    file.write_bytes(whole)
    tensors = load_file(file)
    name = "text_projection.bias" if kind == "prior" else "body.conv_in.bias"
    tensors[name] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(InputError, match=f"tensor {name} has shape"):
        load(place)
    assert any(name in finding.message for finding in check_checkpoint(place).findings)


def test_an_architecture_that_cannot_be(tmp_path):
    place = saved(decoder(HASH), tmp_path / "d")
    config = json.loads((place / "config.json").read_text())
    config["architecture"]["channels"] = [16]
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"architecture: .*two feature maps"):
        load_decoder(place)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 18, "channels": [16, 16, 16]}, "size 18 cannot be halved 2 times"),
        ({"attention": [5]}, "no feature map has the side 5; there are 16, 8"),
        ({"channels": [16, 20]}, "20 is no multiple of groups = 8 and head_width = 8"),
        ({"channels": [16]}, "two feature maps or more"),
    ],
)
def test_shapes_that_do_not_fit(changes, message):
    shape = {"size": 16, "channels": [16, 16], "attention": [8], "head_width": 8, "groups": 8}
    assert DecoderShape.model_validate(shape).sides == (16, 8)
    with pytest.raises(ValidationError, match=message):
        DecoderShape.model_validate(shape | changes)


def test_attention_stands_where_it_is_asked_for():
    config = {"size": 16, "channels": [16, 16, 16], "blocks": 1, "head_width": 8, "groups": 8}
    config |= {"encoder": HASH, "dim": 4}

    def attending(sides):
        names = layout_of_architecture(DecoderConfig.model_validate(config | {"attention": sides}))
        ways = ("body.down_blocks.", "body.up_blocks.")
        found = [name.split(".") for name in names if name.startswith(ways) and "attentions" in name]
        return {name[1] + name[2] for name in found}

    assert attending([]) == set()
    assert attending([4]) == {"down_blocks2", "up_blocks0"}
    assert attending([16, 8]) == {"down_blocks0", "down_blocks1", "up_blocks1", "up_blocks2"}


def test_without_diffusers_one_line_names_the_extra(tmp_path, monkeypatch, capsys):
    place = saved(prior(HASH), tmp_path / "p")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        UsageError, match=r"^diffusion models need diffusers; pip install 'vlcli\[generate\]'$"
    ):
        load_prior(place)
    deepcheck._expected.cache_clear()
    assert check_checkpoint(place).findings == [], "config.json vouches for the tensors"
    with pytest.raises(UsageError, match=r"vlcli\[generate\]"):
        check_checkpoint(place, deep=True)
    line = ["recipes", "validate", "finetune/r2d2-t2i-prior", "finetune/r2d2-t2i-clip"]
    assert not app(line, prog_name="vlcli", standalone_mode=False)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("finetune/r2d2-t2i-prior: ok (its keys; diffusion models need diffusers; ")
    assert said[1] == "finetune/r2d2-t2i-clip: ok"


def test_hashes_are_hashes():
    with pytest.raises(ValidationError, match="encoder"):
        PriorConfig(encoder="nonsense", dim=4, text_width=4, context=8)

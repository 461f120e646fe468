"""Directories in Stable Diffusion's format: what is read, and what is refused in one line."""

import json
import shutil

import pytest
import torch
from diffusion_cases import WIDTH, save_diffusion, unet
from safetensors.torch import load_file, save_file

from vlcli.errors import InputError, UsageError
from vlcli.models import diffusion_directory
from vlcli.models.diffusion_directory import open_diffusion, require_diffusion

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_diffusion(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "sd")


def configure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_every_tensor_is_read(saved):
    found = open_diffusion(saved)
    assert (found.width, found.factor, found.size, found.prediction) == (WIDTH, 2, 16, "epsilon")
    for part in ("unet", "vae"):
        stored = load_file(saved / part / WEIGHTS)
        state = getattr(found, part).state_dict()
        assert stored.keys() == state.keys()
        assert all(torch.equal(stored[name], state[name]) for name in stored)
    assert not any(p.requires_grad for p in (*found.unet.parameters(), *found.vae.parameters()))


def test_a_hash_is_of_the_tensors_alone(saved, copy, tmp_path):
    found = open_diffusion(saved)
    assert open_diffusion(copy).unet_hash == found.unet_hash
    tensors = load_file(copy / "unet" / WEIGHTS)
    first = next(iter(tensors))
    tensors[first].view(-1)[0] += 1
    save_file(tensors, copy / "unet" / WEIGHTS, metadata={"format": "pt"})
    changed = open_diffusion(copy)
    assert changed.unet_hash != found.unet_hash
    assert changed.vae_hash == found.vae_hash


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler"])
def test_a_missing_folder_is_named(copy, part):
    shutil.rmtree(copy / part)
    for reading in (require_diffusion, open_diffusion):
        with pytest.raises(UsageError, match=f"no {part}/"):
            reading(copy)


def test_no_directory_and_none_of_this_format(tmp_path):
    with pytest.raises(UsageError, match="no such directory"):
        open_diffusion(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no model_index\.json"):
        open_diffusion(tmp_path)


def test_half_written_weights_are_damaged(copy):
    file = copy / "unet" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut inside tensor"):
        open_diffusion(copy)


def test_a_pickle_is_never_read(copy, monkeypatch):
    (copy / "vae" / WEIGHTS).unlink()
    torch.save({}, copy / "vae" / "diffusion_pytorch_model.bin")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UsageError, match=r"pickle.*AutoencoderKL\.from_pretrained.*save_pretrained"):
        open_diffusion(copy)


def test_no_weights_at_all(copy):
    (copy / "vae" / WEIGHTS).unlink()
    with pytest.raises(UsageError, match=f"no {WEIGHTS}"):
        open_diffusion(copy)


def test_a_tensor_too_few_or_too_many(copy):
    file = copy / "unet" / WEIGHTS
    tensors = load_file(file)
    gone = tensors.pop("conv_in.bias")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"conv_in\.bias is missing"):
        open_diffusion(copy)
    save_file(tensors | {"conv_in.bias": gone, "stranger": gone.clone()}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="stranger has no place"):
        open_diffusion(copy)


def test_parts_of_another_kind_are_refused(copy):
    configure(copy / "unet", _class_name="UNet2DModel")
    with pytest.raises(UsageError, match="a UNet2DModel, where"):
        open_diffusion(copy)


def test_a_unet_that_wants_more_than_a_text_is_refused(copy):
    wide = unet(addition_embed_type="text")
    wide.save_pretrained(copy / "unet")
    with pytest.raises(UsageError, match="more than the states of a text"):
        open_diffusion(copy)


def test_schedulers(copy):
    file = copy / "scheduler" / "scheduler_config.json"
    before = json.loads(file.read_text())
    file.write_text(json.dumps(before | {"prediction_type": "sample"}))
    with pytest.raises(UsageError, match="neither epsilon nor v_prediction"):
        open_diffusion(copy)
    file.write_text(json.dumps(before | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(InputError, match="no scheduler of diffusers"):
        open_diffusion(copy)
    file.write_text(json.dumps(before | {"prediction_type": "v_prediction"}))
    assert open_diffusion(copy).prediction == "v_prediction"


def test_without_diffusers_one_line_says_so(saved, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match=r"vlcli\[generate\]"):
        diffusion_directory.open_diffusion(saved)

"""Weights are taken from the file as they lie there: no second copy, no initial values, buffers and flags as built."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models_for_checkpoints import tiny_model
from torch import nn

import vlcli
from vlcli.errors import InputError
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.storage import Uninitialised, layout_of, layout_of_architecture

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_the_size_of_the_file(tmp_path):
    """Measured in a process of its own; a second copy anywhere would make it twice the size."""
    sys.path.insert(0, str(BENCH))
    try:
        import load as bench
    finally:
        sys.path.remove(str(BENCH))
    bench.save(tmp_path / "small", 21128, 64)
    bench.save(tmp_path / "large", 60_000)
    size = (tmp_path / "large" / "model.safetensors").stat().st_size / 2**20
    ratio = {}
    for name in ("vlcli", "copied"):
        command = [
            sys.executable,
            bench.__file__,
            "--measure",
            name,
            str(tmp_path / "small"),
            str(tmp_path / "large"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        ratio[name] = json.loads(done.stdout)[1] / size
    assert 0.5 < ratio["vlcli"] < 1.3, ratio
    assert ratio["copied"] > 1.5, f"the measure does not see a second copy: {ratio}"


def test_what_is_written_to_a_loaded_model_stays_out_of_the_file(tmp_path):
    model = tiny_model()
    save_checkpoint(model, tmp_path, recipe={}, lineage={})
    before = (tmp_path / "model.safetensors").read_bytes()
    again = vlcli.load(tmp_path).train()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter += 1
    assert (tmp_path / "model.safetensors").read_bytes() == before
    for name, tensor in model.named_parameters():
        assert torch.equal(again.get_parameter(name), tensor + 1)


def test_a_loaded_model_may_be_saved_over_its_own_file(tmp_path):
    model = tiny_model()
    save_checkpoint(model, tmp_path, recipe={}, lineage={})
    again = vlcli.load(tmp_path)
    with torch.no_grad():
        again.log_scale += 1
    save_checkpoint(again, tmp_path, recipe={}, lineage={})
    stored = load_file(tmp_path / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(stored[name], tensor + 1 if name == "log_scale" else tensor), name
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("tower", "size", "similarity"),
    [("swin_tiny_patch4_window7_224", 224, "reduced"), ("vit_tiny_patch16_224", 64, "global")],
)
def test_buffers_and_flags_are_those_of_a_model_built_as_always(tower, size, similarity, tmp_path):
    image = {"name": tower, "preprocess": {"size": size}, "locked": similarity == "global"}
    model = tiny_model(similarity, image=image, temperature={"learnable": similarity == "reduced"})
    save_checkpoint(model, tmp_path, recipe={}, lineage={})
    again = vlcli.load(tmp_path)
    buffers = dict(model.named_buffers())
    assert buffers.keys() == dict(again.named_buffers()).keys()
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name
        assert parameter.requires_grad == model.get_parameter(name).requires_grad, name
    pixels = torch.randn(1, 3, size, size)
    with torch.no_grad():
        for a, b in zip(model.eval().encode_image(pixels), again.encode_image(pixels), strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


def test_loading_draws_no_random_numbers(tmp_path):
    save_checkpoint(tiny_model(), tmp_path, recipe={}, lineage={})
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    vlcli.load(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_only_parameters_of_this_thread_are_left_alone():
    made = []

    def elsewhere():
        made.append(nn.Linear(4, 4).weight.abs().sum() > 0)
        made.append(nn.init.constant_(nn.Parameter(torch.zeros(2)), 3).tolist() == [3, 3])

    with Uninitialised():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        buffer = torch.zeros(2).fill_(5)
        parameter = nn.Parameter(torch.zeros(2))
        nn.init.ones_(parameter)
        with torch.no_grad():
            parameter.normal_().mul_(2)
        assert not parameter.requires_grad_(False).requires_grad
    assert all(made)
    assert len(made) == 2
    assert buffer.tolist() == [5, 5]
    assert parameter.tolist() == [0, 0]
    nn.init.ones_(parameter)
    assert parameter.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["released", "paper"])
def test_the_layout_of_an_architecture_is_that_of_its_model(kind):
    model = tiny_model("reduced", reduction={"kind": kind})
    assert layout_of_architecture(model.config) == layout_of(model.state_dict())


def test_an_architecture_with_a_small_vocabulary_has_a_layout():
    config = DualEncoderConfig.model_validate(
        {"text": {"vocabulary": 100, "width": 16, "heads": 2, "layers": 1}}
    )
    assert layout_of_architecture(config)["text.token_embedding.weight"] == ("F32", (100, 16))
    with pytest.raises(ValueError, match=r"text\.vocabulary 100"):
        DualEncoder(config)


def test_every_place_where_weights_are_cut(tmp_path):
    save_checkpoint(tiny_model(), tmp_path, recipe={}, lineage={})
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    for size in (0, 4, 8, 9, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"model\.safetensors: cannot read the weights") as refused:
            vlcli.load(tmp_path)
        assert "\n" not in str(refused.value)

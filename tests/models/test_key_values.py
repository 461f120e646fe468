"""Keys and values of a UNet's cross-attention: which they are, what is saved, and what takes them back."""

import shutil

import pytest
import torch
from diffusion_cases import WIDTH, encoder, save_diffusion, save_encoder
from safetensors.torch import load_file, save_file

from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import load, save_checkpoint
from vlcli.models.conditioner import Conditioner, open_encoder
from vlcli.models.diffusion_directory import open_diffusion
from vlcli.models.key_values import load_key_values, new_key_values
from vlcli.models.quickcheck import check_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_diffusion(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture
def made(saved, tmp_path):
    """Keys and values, all of them changed, and the checkpoint of them."""
    model = new_key_values(open_diffusion(saved), Conditioner(encoder()))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1
    save_checkpoint(model, tmp_path / "kv", recipe={}, lineage={})
    return model, tmp_path / "kv"


def test_they_are_the_second_attentions_keys_and_values(saved):
    source = open_diffusion(saved)
    model = new_key_values(source, Conditioner(encoder()))
    expected = {
        name
        for name, _ in source.unet.named_parameters()
        if ".attn2." in name and (".to_k." in name or ".to_v." in name)
    }
    assert expected
    assert {name for name, p in source.unet.named_parameters() if p.requires_grad} == expected
    assert set(model.state_dict()) == expected
    assert all(shape[1] == WIDTH for shape in model.config.tensors.values())


def test_what_is_saved_goes_back_into_the_unet_and_nowhere_else(made, saved):
    model, place = made
    assert set(load_file(place / "model.safetensors")) == set(model.config.tensors)
    fresh, back = open_diffusion(saved), open_diffusion(saved)
    load_key_values(place, back)
    for name, tensor in back.unet.state_dict().items():
        other = (
            model.unet.state_dict()[name] if name in model.config.tensors else fresh.unet.state_dict()[name]
        )
        assert torch.equal(tensor, other), name


def test_check_calls_it_whole_and_finds_what_is_wrong(made):
    _, place = made
    assert not check_checkpoint(place, deep=True).findings
    tensors = load_file(place / "model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    assert check_checkpoint(place).findings


def test_a_file_with_a_tensor_too_few_or_too_many_is_refused(made, saved):
    _, place = made
    tensors = load_file(place / "model.safetensors")
    one = sorted(tensors)[0]
    for wrong in (
        {name: x for name, x in tensors.items() if name != one},
        tensors | {"conv_in.weight": torch.zeros(8, 4, 3, 3)},
        tensors | {one: torch.zeros(3, 3)},
    ):
        save_file(wrong, place / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match="does not fit"):
            load_key_values(place, open_diffusion(saved))


def test_another_unet_is_refused(made, tmp_path):
    other = open_diffusion(save_diffusion(tmp_path / "other", seed=1))
    with pytest.raises(UsageError, match=r"keys and values of the UNet \w+, that of"):
        load_key_values(made[1], other)


def test_widths_that_do_not_fit_are_said_with_what_would(saved):
    source = open_diffusion(saved)
    with pytest.raises(UsageError, match=f"states of {WIDTH} dimensions, the text encoder's are 8"):
        new_key_values(source, Conditioner(encoder(width=8)))
    with pytest.raises(UsageError, match=r"--set diffusion\.states=projected"):
        new_key_values(source, Conditioner(encoder(width=8, dim=WIDTH)))
    projected = Conditioner(encoder(width=8, dim=WIDTH), "projected")
    assert new_key_values(source, projected).config.states == "projected"


def test_states_that_an_encoder_has_not_are_refused():
    with pytest.raises(UsageError, match="there are: head, head-without-norm"):
        Conditioner(encoder(), "projected")


def test_kinds(made, saved, tmp_path):
    """Keys and values are no encoder, and an encoder is no keys and values."""
    _, place = made
    with pytest.raises(UsageError, match="'diffusion-kv'"):
        load(place)
    with pytest.raises(UsageError, match="'diffusion-kv'"):
        open_encoder(str(place))
    text = save_encoder(tmp_path / "text")
    with pytest.raises(UsageError, match="wants 'diffusion-kv'"):
        load_key_values(text, open_diffusion(saved))


def test_an_encoder_has_one_fingerprint_wherever_it_lies(tmp_path):
    place = save_encoder(tmp_path / "text")
    shutil.copytree(place, tmp_path / "elsewhere")
    found = {Conditioner(open_encoder(str(tmp_path / name))).fingerprint for name in ("text", "elsewhere")}
    found.add(Conditioner(encoder(), "head-without-norm").fingerprint)
    assert len(found) == 1
    assert Conditioner(encoder(seed=1)).fingerprint not in found


def test_states_of_a_text_do_not_depend_on_the_others():
    conditioner = Conditioner(encoder())
    texts = ["", "红色", "一只很长的红色狐狸在草地上"]
    together = conditioner.of_texts(texts)
    assert together.shape == (3, conditioner.length, WIDTH)
    for text, states in zip(texts, together, strict=True):
        torch.testing.assert_close(conditioner.of_texts([text])[0], states)

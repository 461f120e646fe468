"""Every format: the original library's numbers from its own file, and its own tensors back in every bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_models import MODELS, SIZE, Foreign
from r2d2_reference import match_logits

import vlcli
from vlcli.errors import InputError
from vlcli.models.adapters.format import Asked
from vlcli.models.adapters.hf_altclip import one_generation
from vlcli.models.convert import Card, express, model_of, open_checkpoint, suffix_of, write
from vlcli.models.initial_text import load_text_tower
from vlcli.models.r2d2 import Pairs, TextStates, image_states
from vlcli.models.text_passes import pooled_place
from vlcli.models.text_tower import text_tower

NEAR = 1e-5
CHINESE = ["一只狐狸", "狗和猫在雪地里", "a cat"]
# Tensors that stand in a file and that nothing reads; they do not come back.
UNREAD = {
    "prd2": ("position_ids", "post_layernorm", ".pooler."),
    "r2d2": ("position_ids", "post_layernorm", ".pooler.", "_joint_layer.embeddings."),
    "chinese-clip": (".pooler.",),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """Each model once."""
    found: dict[str, Foreign] = {}

    def get(name: str) -> Foreign:
        if name not in found:
            found[name] = MODELS[name][1](tmp_path_factory.mktemp(name))
        return found[name]

    return get


def inputs(model):
    torch.manual_seed(1)
    ids, mask = model.tokenize(CHINESE)
    return torch.randn(4, 3, SIZE, SIZE), ids, mask


@torch.no_grad()
def raw(model, pixels, ids, mask):
    """Both sides before normalisation, of the first kind of vector that the model compares."""
    features = model.image_features(pixels)
    if model.config.similarity == "global":
        image = model.image_projection(features.pooled)
    elif model.config.similarity == "tokenwise":
        image = model.image_projection(features.tokens)
    else:
        image = model.reduce(features).tokens
    hidden = model.text(ids, mask)
    if model.text_head is not None:
        hidden = model.text_head(hidden)
    hidden = model.text_projection(hidden)
    if model.config.similarity != "global":
        return image, hidden
    places = pooled_place(ids, mask, model.config.text.pooling, model.tokenizer.sep_id)
    return image, hidden[torch.arange(len(ids)), places]


def assert_same_numbers(model, reference: Foreign) -> None:
    pixels, ids, mask = inputs(model)
    with torch.no_grad():
        image, text = raw(model, pixels, ids, mask)
        torch.testing.assert_close(image, reference.image(pixels), rtol=NEAR, atol=NEAR)
        expected = reference.text(ids, mask)
        if expected.dim() == 3:  # what stands at padding is nobody's
            expected, text = expected[:, : ids.shape[1]][mask], text[mask]
        torch.testing.assert_close(text, expected, rtol=NEAR, atol=NEAR)
        i2t = model.similarity(model.encode_image(pixels), model.encode_text(ids, mask))[0] * model.scale()
        torch.testing.assert_close(i2t, reference.logits(pixels, ids, mask), rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize("name", MODELS)
def test_the_format_is_told_by_its_tensors_and_files(name, saved):
    assert open_checkpoint(saved(name).path).format == MODELS[name][0]


@pytest.mark.parametrize("name", MODELS)
def test_features_and_logits_are_those_of_the_original(name, saved):
    assert_same_numbers(vlcli.load(saved(name).path), saved(name))


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_every_tensor_is_the_same(name, saved, tmp_path):
    """Through a checkpoint of ours, which gives the same numbers too."""
    reference, format = saved(name), MODELS[name][0]
    write(express(open_checkpoint(reference.path), "vlcli"), tmp_path / "ours", card=Card())
    assert_same_numbers(vlcli.load(tmp_path / "ours"), reference)
    back = tmp_path / f"back{suffix_of(format)}"
    write(express(open_checkpoint(tmp_path / "ours"), format), back)
    found = tensors_of(back, name)
    unread = UNREAD.get(name, ())
    wanted = {
        key: tensor for key, tensor in reference.tensors.items() if not any(part in key for part in unread)
    }
    if name == "hf-altclip":  # goes back under the names of the release
        wanted = {one_generation(key): tensor for key, tensor in wanted.items()}
    if (
        name == "open_clip-custom"
    ):  # goes back as the plain layout, which has no prefix before the text tower's names
        wanted = {k.removeprefix("text."): tensor for k, tensor in wanted.items()}
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key
    assert_same_numbers(vlcli.load(back), reference)


def tensors_of(path: Path, name: str) -> dict[str, torch.Tensor]:
    """What the original library's own loader finds in the file."""
    if name.startswith("hf-"):
        import transformers
        from safetensors.torch import load_file

        kind = {"hf-clip": "CLIPModel", "hf-chinese-clip": "ChineseCLIPModel", "hf-altclip": "AltCLIPModel"}[
            name
        ]
        _, info = getattr(transformers, kind).from_pretrained(path, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        # its loader sets the embedding of padding to zero, the file holds what came
        return load_file(path / "model.safetensors")
    if name.startswith("open_clip"):
        import open_clip

        return dict(open_clip.create_model(f"local-dir:{path}").state_dict())
    state = torch.load(path, weights_only=True)
    return state.get("state_dict", state.get("model", state))


@torch.no_grad()
def test_the_ranking_part_of_r2d2_gives_the_numbers_of_its_literal_self(saved):
    """Pair by pair, without padding, through both cross encoders; layers' attention as well."""
    theirs, ours = saved("r2d2").model, vlcli.load(saved("r2d2").path)
    pixels, ids, mask = inputs(ours)
    texts = TextStates(ours.text_states(ids, mask), mask)
    images = image_states(ours.image_features(pixels))
    pairs = Pairs(torch.tensor([0, 1, 2, 0, 2]), torch.tensor([0, 1, 2, 3, 0]))
    found = ours.ranking(texts, images, pairs)
    hidden = theirs.text_encoder(ids, attention_mask=mask.long()).last_hidden_state
    states = theirs.visual_encoder(pixels).last_hidden_state
    torch.testing.assert_close(images, states, rtol=NEAR, atol=NEAR)
    for p, (i, j) in enumerate(zip(*pairs, strict=True)):
        text, image = match_logits(theirs, hidden[i][mask[i]], states[j])
        torch.testing.assert_close(found.text_logits[p], text, rtol=NEAR, atol=NEAR)
        torch.testing.assert_close(found.image_logits[p], image, rtol=NEAR, atol=NEAR)
        both = (text.softmax(0)[1] + image.softmax(0)[1]) / 2
        torch.testing.assert_close(found.probability[p], both, rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize("name", [name for name in MODELS if "timm" not in name])
def test_init_text_takes_the_text_tower_out_of_it(saved, name):
    path = saved(name).path
    form = MODELS[name][0]
    want = model_of(open_checkpoint(path, Asked(towers_only=True), format=form))
    tower = text_tower(want.config.text)
    load_text_tower(tower, path, "it")
    found = want.text.state_dict()
    assert found
    assert all(torch.equal(x, found[key]) for key, x in tower.state_dict().items())
    smaller = want.config.text.model_copy(update={"layers": 1, "encoder": None, "kind": "causal"})
    with pytest.raises(InputError, match="does not fit it"):
        load_text_tower(text_tower(smaller), path, "it")

"""The per-token states of AltCLIP against both libraries that have them, and AltDiffusion's own text side."""

import json
import shutil

import pytest
import torch
import transformers
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from diffusion_cases import save_diffusion
from foreign_models import BERT, hf_altclip, sentencepiece

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.models.adapters.alt_diffusion import has_text_side, read_text_side
from vlcli.models.conditioner import Conditioner
from vlcli.models.text_encoder import TextEncoder

TEXTS = ["a b c d", "", "b a"]
TEXT = BERT | {"vocab_size": 300, "project_dim": 48}


def padded(conditioner, texts):
    ids, mask = conditioner.tokenize(texts)
    return {"input_ids": ids, "attention_mask": mask.long()}


@pytest.fixture(scope="module")
def altclip(tmp_path_factory):
    return hf_altclip(tmp_path_factory.mktemp("altclip")).path


@pytest.fixture(scope="module")
def alt_diffusion(tmp_path_factory):
    """The text folders of an AltDiffusion, with everything random."""
    folder = tmp_path_factory.mktemp("alt-diffusion")
    torch.manual_seed(0)
    model = RobertaSeriesModelWithTransformation(RobertaSeriesConfig(**TEXT)).eval()
    model.save_pretrained(folder / "text_encoder")
    sentencepiece().save_pretrained(folder / "tokenizer")
    return folder, model


@torch.no_grad()
def test_head_is_transformers_last_hidden_state(altclip):
    conditioner = Conditioner(vlcli.load(altclip))
    theirs = (
        transformers.AltCLIPModel.from_pretrained(altclip).eval().text_model(**padded(conditioner, TEXTS))
    )
    torch.testing.assert_close(conditioner.of_texts(TEXTS), theirs.last_hidden_state, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_the_norm_it_is_flagais_projection_state(altclip):
    """FlagAI's `projection_state`, which diffusers' AltDiffusion reads, is of the tower's bare states."""
    conditioner = Conditioner(vlcli.load(altclip), "head-without-norm")
    text = transformers.AltCLIPModel.from_pretrained(altclip).eval().text_model
    hidden = text.roberta(**padded(conditioner, TEXTS)).last_hidden_state
    torch.testing.assert_close(conditioner.of_texts(TEXTS), text.transformation(hidden), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_alt_diffusions_text_side_says_what_it_says_in_diffusers(alt_diffusion):
    folder, model = alt_diffusion
    assert has_text_side(folder)
    found = read_text_side(folder)
    assert isinstance(found, TextEncoder)
    conditioner = Conditioner(found)
    assert conditioner.width == 48
    theirs = model(**padded(conditioner, TEXTS)).projection_state
    torch.testing.assert_close(conditioner.of_texts(TEXTS), theirs, rtol=1e-4, atol=1e-5)


def test_m18_is_refused(alt_diffusion, tmp_path):
    shutil.copytree(alt_diffusion[0], tmp_path / "m18")
    file = tmp_path / "m18" / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"has_pre_transformation": True}))
    with pytest.raises(InputError, match="m18"):
        read_text_side(tmp_path / "m18")


def alt_directory(alt_diffusion, place):
    """A whole AltDiffusion directory."""
    save_diffusion(place, 48)
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(alt_diffusion[0] / name, place / name)
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps(index | {"_class_name": "AltDiffusionPipeline"}))
    return place


def test_an_alt_diffusion_draws_by_its_own_text_side(alt_diffusion, tmp_path):
    place = alt_directory(alt_diffusion, tmp_path / "alt")
    line = [
        "generate",
        str(place),
        "--text",
        "a b",
        "--steps",
        "2",
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "out"),
    ]
    assert not app(line, prog_name="vlcli", standalone_mode=False)
    row = json.loads((tmp_path / "out" / "pairs.jsonl").read_text())
    assert row["generated_by"]["states"] == "head-without-norm"
    expected = Conditioner(read_text_side(place)).fingerprint
    assert row["generated_by"]["models"]["encoder"] == expected


def test_an_alt_diffusion_with_a_pickled_text_side_wants_an_encoder(alt_diffusion, tmp_path):
    place = alt_directory(alt_diffusion, tmp_path / "alt")
    (place / "text_encoder" / "model.safetensors").unlink()
    (place / "text_encoder" / "pytorch_model.bin").touch()
    with pytest.raises(UsageError, match=r"no text_encoder/model\.safetensors.*--encoder"):
        app(["generate", str(place), "--text", "a"], prog_name="vlcli", standalone_mode=False)

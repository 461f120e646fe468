"""A captioner: what is written later changes nothing before, beside a literal decoder, and as a checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "generation"))

from caption_models import encoder, pixels, tiny

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.models.captioner import Captioner, refuse_unfit_text_encoder
from vlcli.models.card import write_card
from vlcli.models.checkpoint import load_captioner, save_checkpoint
from vlcli.models.config import CaptionerConfig, TextTowerConfig
from vlcli.models.quickcheck import check_checkpoint

KINDS = ("bert", "roberta", "xlm-roberta")


def ids_of(model: Captioner, *texts: str) -> torch.Tensor:
    return model.tokenize(texts)[0]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_later_token_changes_no_earlier_logit(kind: str) -> None:
    model = tiny(kind)
    pictures = model.pictures(model.image_features(pixels(1)))
    one = ids_of(model, "草地上有一只狐狸")
    logits = model(one, pictures)
    random = torch.Generator().manual_seed(2)
    for place in range(1, one.shape[1]):
        other = one.clone()
        other[0, place:] = torch.randint(5, 20000, other[0, place:].shape, generator=random)
        found = model(other, pictures)
        moved = (found - logits)[0].abs().amax(-1)
        assert moved[:place].max() < 1e-5 < 1e-2 < moved[place:].min()


@torch.no_grad()
def test_a_picture_changes_every_logit_and_no_other_pictures() -> None:
    model = tiny()
    pictures = model.pictures(model.image_features(pixels(2)))
    ids = ids_of(model, "狐狸", "狐狸")
    both = model(ids, pictures)
    assert not torch.allclose(both[0], both[1], atol=1e-2)
    torch.testing.assert_close(model(ids[1:], pictures[1:])[0], both[1])


@torch.no_grad()
def test_padding_behind_a_text_is_not_seen() -> None:
    model = tiny("roberta")
    pictures = model.pictures(model.image_features(pixels(1)))
    ids = ids_of(model, "狐狸")
    longer = F.pad(ids, (0, 5), value=model.tokenizer.pad_id)
    torch.testing.assert_close(model(longer, pictures)[:, : ids.shape[1]], model(ids, pictures))


@torch.no_grad()
def test_it_is_a_literal_decoder_over_prefixes() -> None:
    """Token by token: the whole prefix through transformers' encoder as it reads both ways cannot be meant, so through
    one that masks; then attention by explicit sums."""
    model = tiny()
    features = model.image_features(pixels(1))
    ids = ids_of(model, "一只狐狸")
    keys = torch.cat([features.pooled[:, None], features.tokens], 1)[0]
    wanted = []
    for end in range(1, ids.shape[1] + 1):
        x = model.text.body(input_ids=ids[:, :end]).last_hidden_state[0]
        for layer in model.cross.layers:
            x = literal_attention(layer.own, x, x, causal=True)
            x = literal_attention(layer.other, x, keys, causal=False)
            x = layer.norm(x + layer.proj(F.gelu(layer.fc(x))))
        head = model.head.norm(F.gelu(model.head.fc(x[-1])))
        table = model.text.body.embeddings.word_embeddings.weight
        wanted.append(head @ table.T + model.head.bias)
    torch.testing.assert_close(
        model(ids, model.pictures(features))[0], torch.stack(wanted), rtol=1e-4, atol=1e-4
    )


def literal_attention(layer, x, y, *, causal):
    """norm(x + out(attention)), a query and a head at a time."""
    width = x.shape[1] // layer.heads
    q, (k, v) = layer.query(x), layer.key_value(y).chunk(2, -1)
    rows = []
    for i in range(len(x)):
        heads = []
        for h in range(layer.heads):
            own = slice(h * width, (h + 1) * width)
            seen = i + 1 if causal else len(y)
            chances = torch.softmax(k[:seen, own] @ q[i, own] / width**0.5, 0)
            heads.append(chances @ v[:seen, own])
        rows.append(torch.cat(heads))
    return layer.norm(x + layer.out(torch.stack(rows)))


def test_an_encoder_that_reads_both_ways_is_refused() -> None:
    text = encoder() | {"model_type": "mpnet"}
    config = tiny().config.model_copy(
        update={"text": TextTowerConfig(kind="transformers", encoder=text, pooling="cls", context=16)}
    )
    with pytest.raises(UsageError, match="'mpnet' does not read from left to right"):
        refuse_unfit_text_encoder(Captioner(config))
    for kind in KINDS:
        refuse_unfit_text_encoder(tiny(kind))


def test_a_causal_tower_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="one of transformers"):
        CaptionerConfig(text=TextTowerConfig(width=16, layers=1, heads=2))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tiny(), tmp_path / "captioner", recipe={"name": "x"}, lineage={})
    write_card(tmp_path / "captioner")
    return tmp_path / "captioner"


@torch.no_grad()
def test_it_comes_back_from_its_checkpoint(saved: Path) -> None:
    model, back = tiny(), load_captioner(saved)
    ids = ids_of(model, "狐狸")
    pictures = model.pictures(model.image_features(pixels(1)))
    torch.testing.assert_close(back(ids, back.pictures(back.image_features(pixels(1)))), model(ids, pictures))
    assert not back.training
    assert json.loads((saved / "config.json").read_text())["kind"] == "captioner"
    # the table of embeddings stands there once
    tables = [n for n, x in load_file(saved / "model.safetensors").items() if tuple(x.shape) == (21128, 16)]
    assert tables == ["text.body.embeddings.word_embeddings.weight"]
    card = (saved / "README.md").read_text()
    assert "pipeline_tag: image-to-text" in card
    assert "vlcli generate PATH --caption" in card


def test_check_and_other_commands_know_its_kind(saved: Path) -> None:
    for deep in (False, True):
        assert check_checkpoint(saved, deep=deep).status == "whole"
    with pytest.raises(UsageError, match="kind 'captioner'; this command wants 'dual' or 'r2d2'"):
        vlcli.load(saved)
    (saved / "config.json").write_text(
        (saved / "config.json").read_text().replace('"intermediate": 24', '"intermediate": 25')
    )
    found = check_checkpoint(saved)
    assert found.status == "damaged"
    assert "cross.layers.0.fc.bias has shape (24,)" in found.findings[0].message
    with pytest.raises(InputError, match="does not fit the architecture"):
        load_captioner(saved)


def test_half_written_weights_are_said(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cut inside tensor" in check_checkpoint(saved).findings[0].message
    with pytest.raises(InputError, match="cannot read the weights"):
        load_captioner(saved)
    with pytest.raises(InputError, match="cannot read the weights"):
        app(["generate", str(saved), "--caption", "x.jsonl"], prog_name="vlcli", standalone_mode=False)

"""Encoders of transformers as towers: the same hidden states, padding without effect, sizes by name."""

import json

import pytest
import torch
from pydantic import ValidationError
from tiny_models_for_checkpoints import tiny_model

import vlcli
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import DualEncoderConfig, TextTowerConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.encoders import ENCODERS, resolved
from vlcli.models.text_passes import pooled_place
from vlcli.models.text_tower import text_tower

SMALL = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


def originals():
    from transformers import (
        BertConfig,
        BertModel,
        RobertaConfig,
        RobertaModel,
        XLMRobertaConfig,
        XLMRobertaModel,
    )

    return {
        "bert": (BertModel, BertConfig(**SMALL, pad_token_id=0)),
        "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig(**SMALL, pad_token_id=1, layer_norm_eps=1e-5)),
        "roberta": (RobertaModel, RobertaConfig(**SMALL, pad_token_id=1, layer_norm_eps=1e-5)),
    }


def pair(kind):
    """transformers' model with random weights, and our tower with the same."""
    model, config = originals()[kind]
    torch.manual_seed(0)
    theirs = model(config).eval()
    ours = text_tower(TextTowerConfig(kind="transformers", encoder=config.to_dict(), context=30)).eval()
    missing = ours.body.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing.missing_keys
    assert all(name.startswith("pooler.") for name in missing.unexpected_keys)
    return theirs, ours


def padded():
    """ids (4, 12) of 12, 7, 2 and 1 tokens and their mask; no token is a padding id."""
    ids = torch.randint(5, 120, (4, 12), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(12) < torch.tensor([12, 7, 2, 1])[:, None]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "roberta"])
@pytest.mark.parametrize("filler", [0, 1, 77])
def test_hidden_states_are_transformers_own_whatever_fills_the_padding(kind, filler):
    """RoBERTa finds positions by its padding id: another filler would shift nothing here, but count as tokens there."""
    theirs, ours = pair(kind)
    ids, mask = padded()
    with torch.no_grad():
        wanted = theirs(
            input_ids=ids.masked_fill(~mask, theirs.config.pad_token_id), attention_mask=mask.long()
        ).last_hidden_state
        found = ours(ids.masked_fill(~mask, filler), mask)
        torch.testing.assert_close(found[mask], wanted[mask], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(ours(ids[:1]), found[:1], atol=1e-6, rtol=1e-6)  # no mask: all are tokens


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "roberta"])
def test_a_text_alone_gives_what_it_gives_beside_a_longer_one(kind):
    _, ours = pair(kind)
    ids, mask = padded()
    with torch.no_grad():
        together = ours(ids, mask)
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = ours(ids[row : row + 1, :length], mask[row : row + 1, :length])
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=1e-6)


def model_of(kind="bert", pooling="cls", similarity="global", **text):
    encoder = {**SMALL, "model_type": kind, "vocab_size": 21128, "pad_token_id": 0 if kind == "bert" else 1}
    text = {"kind": "transformers", "encoder": encoder, "pooling": pooling, **text}
    torch.manual_seed(0)
    return tiny_model(similarity, text=text).eval()


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("similarity", ["global", "tokenwise"])
@pytest.mark.parametrize("pooling", ["cls", "last", "eot"])
def test_padding_alone_and_the_empty_text_are_numbers(kind, similarity, pooling):
    model = model_of(kind, pooling, similarity)
    ids, mask = model.tokenize(["狐狸", "", "一只猫"])
    mask[1] = False  # not even [CLS]
    with torch.no_grad():
        text = model.encode_text(ids, mask)
        other = model.encode_text(ids[[0, 2]], mask[[0, 2]])
        found = model.similarity(model.encode_image(torch.randn(2, 3, 32, 32)), text)
        empty = model.encode_text(*model.tokenize([""]))
    for x in (text.tokens, text.pooled, empty.tokens, empty.pooled, found.t2i):
        assert x is None or x.isfinite().all()
    if similarity == "global":
        assert found.i2t.isfinite().all()
        torch.testing.assert_close(text.pooled[[0, 2]], other.pooled)


def test_gradients_through_a_batch_with_padding_alone_are_numbers():
    model = model_of("xlm-roberta")
    ids, mask = model.tokenize(["狐狸", "一只猫"])
    mask[1] = False
    model.encode_text(ids, mask).pooled.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.text.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_grouping_by_length_changes_nothing(kind):
    model = model_of(kind, "cls")
    ids, mask = model.tokenize(["狐" * (1 + i % 20) for i in range(150)])
    with torch.no_grad():
        grouped = model.encode_text(ids, mask).pooled
        parts = [model.encode_text(ids[i : i + 30], mask[i : i + 30]).pooled for i in range(0, 150, 30)]
    torch.testing.assert_close(grouped, torch.cat(parts), atol=1e-6, rtol=1e-6)


def test_pooling_stands_where_it_says():
    text = ["狐狸", "一只猫"]
    for pooling, places in (("cls", [0, 0]), ("last", [3, 4]), ("eot", [3, 4])):
        model = model_of("bert", pooling)
        ids, mask = model.tokenize(text)
        with torch.no_grad():
            hidden = model.text(ids, mask)[torch.arange(2), places]
            wanted = torch.nn.functional.normalize(model.text_projection(hidden), dim=-1)
            torch.testing.assert_close(model.encode_text(ids, mask).pooled, wanted)


def test_eot_is_the_first_one_and_the_last_token_where_there_is_none():
    model = model_of("bert", "eot")
    end = model.tokenizer.sep_id
    ids = torch.tensor([[101, 500, end, 600, end], [101, 500, 600, 700, 0]])
    mask = torch.tensor([[True] * 5, [True, True, True, True, False]])
    assert pooled_place(ids, mask, model.config.text.pooling, model.tokenizer.sep_id).tolist() == [2, 3]
    mask[0, :3] = torch.tensor([True, True, False])  # an end in what is padding is none
    assert pooled_place(ids, mask, model.config.text.pooling, model.tokenizer.sep_id)[0] == 4


def test_altclips_head_is_transformers_own():
    """pre_LN and transformation on every state, then the projection, of AltCLIP's text side (XLM-R states → 768)."""
    from transformers import AltCLIPTextConfig, AltCLIPTextModel

    config = AltCLIPTextConfig(
        **SMALL, project_dim=24, pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5
    )
    torch.manual_seed(0)
    theirs = AltCLIPTextModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    encoder = {
        **SMALL,
        "model_type": "xlm-roberta",
        "pad_token_id": 1,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    architecture = {
        "similarity": "global",
        "dim": 24,
        "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
        "text": {
            "kind": "transformers",
            "encoder": encoder,
            "context": 30,
            "pooling": "cls",
            "head": {"width": 24},
        },
        "text_projection": {"kind": "none"},
    }

    class Numbers:
        vocab_size, cls_id, sep_id = 120, 0, 2

    ours = DualEncoder(DualEncoderConfig.model_validate(architecture), Numbers()).eval()
    state = theirs.state_dict()
    inside = {
        name.removeprefix("roberta.").replace("encoder.layers.", "encoder.layer."): x
        for name, x in state.items()
        if name.startswith("roberta.") and not name.startswith("roberta.pooler.")
    }
    known = ours.text.body.state_dict()
    ours.text.body.load_state_dict({name: x for name, x in inside.items() if name in known})
    ours.text_head.norm.load_state_dict({k: state[f"pre_LN.{k}"] for k in ("weight", "bias")})
    ours.text_head.fc.load_state_dict({k: state[f"transformation.{k}"] for k in ("weight", "bias")})
    ids, mask = padded()
    ids = ids.masked_fill(~mask, 1)
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask.long()).pooler_output
        found = ours.encode_text(ids, mask).pooled
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=-1), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_stands_alone(tmp_path):
    model = model_of("xlm-roberta", head={"width": 24, "norm": False})
    save_checkpoint(model, tmp_path / "c", recipe={}, lineage={})
    again = vlcli.load(tmp_path / "c")
    assert again.config == model.config
    ids, mask = model.tokenize(["狐狸", "一只很长的猫"])
    with torch.no_grad():
        assert torch.equal(model.encode_text(ids, mask).pooled, again.encode_text(ids, mask).pooled)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_sizes_are_those_that_transformers_builds(name):
    """Parameters by hand: embeddings, then per layer 4 d² of attention and 8 d² of the MLP, with biases and norms."""
    config = TextTowerConfig(kind="transformers", name=name)
    with torch.device("meta"):
        tower = text_tower(config)
    encoder, d = config.encoder, config.width
    tables = encoder["vocab_size"] + encoder["max_position_embeddings"] + encoder["type_vocab_size"]
    wanted = (tables + 2) * d + config.layers * (12 * d * d + 13 * d)
    assert sum(p.numel() for p in tower.parameters()) == wanted
    assert tower.width == d


def test_a_directory_gives_its_configuration_and_the_checkpoint_no_path(tmp_path):
    (tmp_path / "xlm").mkdir()
    originals()["xlm-roberta"][1].save_pretrained(tmp_path / "xlm")
    config = TextTowerConfig(kind="transformers", name=str(tmp_path / "xlm"), context=38, dropout=0.0)
    assert (config.width, config.layers, config.heads, config.vocabulary) == (32, 2, 2, 120)
    assert (config.padding_id, config.encoder["hidden_dropout_prob"]) == (1, 0.0)
    assert str(tmp_path) not in json.dumps(config.model_dump())
    assert TextTowerConfig.model_validate(config.model_dump()) == config


def test_resolving_twice_changes_nothing():
    for name in ENCODERS:
        once = resolved(
            {"kind": "transformers", "name": name, "vocabulary": 777, "dropout": 0.3, "context": 64}
        )
        assert resolved(once) == once
        assert once["encoder"]["vocab_size"] == 777
        assert once["encoder"]["attention_probs_dropout_prob"] == 0.3
    odd = {"model_type": "bert", "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0}
    config = TextTowerConfig(kind="transformers", encoder=odd)
    assert (config.dropout, config.encoder["attention_probs_dropout_prob"], config.width) == (0.2, 0.0, 768)
    assert TextTowerConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"kind": "transformers"}, "which encoder"),
        (
            {"kind": "transformers", "name": "bert-tiny"},
            "neither a directory with a config.json nor one of bert-mini",
        ),
        ({"kind": "transformers", "name": "bert-mini", "width": 512}, "text.width is 512"),
        ({"kind": "transformers", "name": "bert-mini", "context": 513}, "512 positions"),
        ({"kind": "transformers", "name": "xlm-roberta-base", "context": 513}, "512 positions"),
        ({"kind": "transformers", "encoder": {"model_type": "no-such"}}, "text.encoder"),
        (
            {"kind": "transformers", "name": "bert-mini", "encoder": ENCODERS["bert-base"]},
            "whose hidden_size is 256",
        ),
        ({"name": "bert-mini"}, 'belongs to kind = "transformers"'),
        ({"pooling": "cls"}, "the first token of a causal"),
        ({"unlocked_from": 3}, "wants text.locked"),
    ],
)
def test_what_does_not_fit_together(text, message):
    with pytest.raises(ValidationError, match=message):
        TextTowerConfig.model_validate(text)

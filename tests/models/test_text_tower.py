"""The causal transformer against transformers' CLIP text model with the same weights."""

import pytest
import torch

from vlcli.models.config import DualEncoderConfig, TextTowerConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.text_tower import CausalTextTransformer

CONFIG = TextTowerConfig(width=64, layers=2, heads=2, context=12, vocabulary=100)


def clip_twin(tower, activation="quick_gelu", eps=1e-5, eos=99):
    """transformers' CLIPTextTransformer carrying our weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    twin = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=100,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            hidden_act=activation,
            layer_norm_eps=eps,
            eos_token_id=eos,
            bos_token_id=98,
            pad_token_id=0,
        )
    )
    state = tower.state_dict()
    names = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    mapped = {theirs: state[ours] for ours, theirs in names.items()}
    layer = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "out": "self_attn.out_proj",
        "fc": "mlp.fc1",
        "proj": "mlp.fc2",
    }
    for i in range(2):
        for kind in ("weight", "bias"):
            for ours, theirs in layer.items():
                mapped[f"encoder.layers.{i}.{theirs}.{kind}"] = state[f"blocks.{i}.{ours}.{kind}"]
            parts = state[f"blocks.{i}.qkv.{kind}"].chunk(3)
            for name, part in zip(("q", "k", "v"), parts, strict=True):
                mapped[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = part
    wanted = {name.removeprefix("text_model.") for name in twin.state_dict()} - {"embeddings.position_ids"}
    assert wanted == set(mapped)
    prefix = "text_model." if any(name.startswith("text_model.") for name in twin.state_dict()) else ""
    twin.load_state_dict({prefix + name: tensor for name, tensor in mapped.items()}, strict=False)
    return twin.eval()


def small_tower(**settings):
    """Ours, its norms and biases random too, so that an eps or a bias out of place would show."""
    torch.manual_seed(0)
    tower = CausalTextTransformer(CONFIG.model_copy(update=settings)).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.5)
        tower.token_embedding.weight.mul_(0.05)  # small states: eps counts
    return tower


@pytest.mark.parametrize(("activation", "eps"), [("quick_gelu", 1e-5), ("gelu", 1e-5), ("gelu", 1e-3)])
def test_equals_transformers_clip_text_model(activation, eps):
    tower = small_tower(activation=activation, eps=eps)
    ids = torch.randint(1, 98, (3, 9))
    with torch.no_grad():
        want = clip_twin(tower, activation, eps)(input_ids=ids).last_hidden_state
        torch.testing.assert_close(tower(ids), want, atol=1e-5, rtol=1e-5)
        other = {"quick_gelu": "gelu", "gelu": "quick_gelu"}[activation]
        for wrong in (clip_twin(tower, other, eps), clip_twin(tower, activation, eps * 100)):
            assert not torch.allclose(
                tower(ids), wrong(input_ids=ids).last_hidden_state, atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("eos", [99, 2])
def test_eot_pooling_is_transformers_clip_pooling(eos):
    """Of the first end-of-text, and of the largest id, which configurations from before 2023 mean by eos_token_id 2."""
    torch.manual_seed(0)
    text = {**CONFIG.model_dump(exclude={"tokenizer"}), "pooling": "eot"}
    tower = CausalTextTransformer(CONFIG).eval()

    class Numbers:
        vocab_size, cls_id, sep_id = 100, 98, 99

    model = DualEncoder(
        DualEncoderConfig.model_validate(
            {
                "similarity": "global",
                "dim": 64,
                "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
                "text": text,
                "text_projection": {"kind": "none"},
            }
        ),
        Numbers(),
    ).eval()
    model.text.load_state_dict(tower.state_dict())
    lengths = torch.tensor([9, 4, 2])
    mask = torch.arange(9) < lengths[:, None]
    ids = torch.randint(3, 98, (3, 9)).masked_fill(~mask, 0)
    ids[:, 0] = 98
    ids[torch.arange(3), lengths - 1] = 99
    with torch.no_grad():
        want = clip_twin(tower, eos=eos)(input_ids=ids, attention_mask=mask.long()).pooler_output
        found = model.encode_text(ids, mask).pooled
    torch.testing.assert_close(found, torch.nn.functional.normalize(want, dim=-1), atol=1e-5, rtol=1e-5)


def test_no_token_sees_what_follows():
    torch.manual_seed(0)
    tower = CausalTextTransformer(CONFIG).eval()
    a = torch.randint(1, 98, (1, 9))
    b = a.clone()
    b[0, 5:] = torch.randint(1, 98, (4,))
    with torch.no_grad():
        x, y = tower(a), tower(b)
    torch.testing.assert_close(x[:, :5], y[:, :5])
    assert not torch.allclose(x[:, 5:], y[:, 5:])


def test_padding_behind_changes_nothing():
    torch.manual_seed(0)
    tower = CausalTextTransformer(CONFIG).eval()
    ids = torch.randint(1, 98, (2, 6))
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], 1)
    with torch.no_grad():
        torch.testing.assert_close(tower(padded)[:, :6], tower(ids))

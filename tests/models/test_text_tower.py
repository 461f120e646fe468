"""The causal transformer against transformers' CLIP text model with the same weights."""

import torch

from vlcli.models.config import TextTowerConfig
from vlcli.models.text_tower import CausalTextTransformer

CONFIG = TextTowerConfig(width=64, layers=2, heads=2, context=12, vocabulary=100)


def clip_twin(tower):
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
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
            eos_token_id=99,
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


def test_equals_transformers_clip_text_model():
    torch.manual_seed(0)
    tower = CausalTextTransformer(CONFIG).eval()
    ids = torch.randint(1, 98, (3, 9))
    with torch.no_grad():
        want = clip_twin(tower)(input_ids=ids).last_hidden_state
        torch.testing.assert_close(tower(ids), want, atol=1e-5, rtol=1e-5)


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

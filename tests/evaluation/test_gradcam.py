"""Grad-CAM against a literal reading, finite differences and pytorch-grad-cam."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import tiny

from vlcli.errors import UsageError
from vlcli.evaluation.alignment import Alignment, align, encode_label, encode_patches
from vlcli.evaluation.gradcam import attention_cam, check_layer, gradcam, layers_of, stretched

KINDS = ["global", "tokenwise", "reduced"]
TOWERS = ["test_vit", "test_efficientnet"]


def pixels(seed=0, side=64):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def telling(model, text, layer=None):
    """A picture with a map that is not zero everywhere, on a grid of at least 4 × 4."""
    side = 64 if model.image.prefix else 128
    pictures = (pixels(seed, side) for seed in range(20))
    return next(p for p in pictures if gradcam(model, p, [text], layer)[0].similarity.any())


def in_rows(model, value):
    if value.dim() == 3:
        return value[0, model.image.prefix :]
    return torch.stack([value[0, :, r, c] for r in range(value.shape[2]) for c in range(value.shape[3])])


def literal(model, picture, text, module):
    """By the book: backward through the whole model, and loops over channels and places."""
    model = copy.deepcopy(model)
    module = dict(model.named_modules())[module]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    kept = {}

    def keep(_module, _inputs, output):
        kept["out"] = output
        output.retain_grad()

    handle = module.register_forward_hook(keep)
    image = model.project_image(model.image(picture))
    if image.pooled is not None:
        score = (image.pooled[0] * text.vectors[0]).sum()
    else:
        best = [torch.stack([v @ text.vectors[r] for v in image.tokens[0]]).max() for r in text.positions]
        score = sum(best) / len(best)
    score.backward()
    handle.remove()
    activations = in_rows(model, kept["out"].detach()).tolist()
    gradients = in_rows(model, kept["out"].grad).tolist()
    places, channels = len(activations), len(activations[0])
    weights = [sum(gradients[q][c] for q in range(places)) / places for c in range(channels)]
    cam = []
    for p in range(places):
        total = 0.0
        for c in range(channels):
            total += weights[c] * activations[p][c]
        cam.append(max(total, 0.0))
    side = round(places**0.5)
    return np.array(cam).reshape(side, side), float(score.detach())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tower", "layer", "module"),
    [
        ("test_vit", None, "image.body.blocks.5.norm1"),
        ("test_vit", 2, "image.body.blocks.1.norm1"),
        ("test_efficientnet", None, "image.body.bn2"),
        ("test_efficientnet", 3, "image.body.blocks.2"),
    ],
)
def test_a_map_is_what_the_literal_reading_gives(kind, tower, layer, module):
    model = tiny(kind, tower)
    text = encode_label(model, "狐狸", "一只{}")
    picture = telling(model, text, layer)
    (found,) = gradcam(model, picture, [text], layer)
    cam, score = literal(model, picture, text, module)
    assert cam.max() > 0
    np.testing.assert_allclose(
        found.similarity * (cam.max() - cam.min()) + cam.min(), cam, rtol=1e-3, atol=1e-7
    )
    assert found.peak == pytest.approx(cam.max(), rel=1e-4)
    assert found.score == pytest.approx(score, abs=1e-5)
    assert (found.method, found.layer) == ("gradcam", layer or len(layers_of(model)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tower", TOWERS)
def test_pytorch_grad_cam_draws_the_same(kind, tower):
    from pytorch_grad_cam import GradCAM

    model = tiny(kind, tower)
    text = encode_label(model, "狐狸")
    picture = telling(model, text)
    (found,) = gradcam(model, picture, [text])

    class Scored(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(model)

        def forward(self, picture):
            image = self.inner.project_image(self.inner.image(picture))
            if image.pooled is not None:
                return image.pooled @ text.vectors.T
            return (image.tokens @ text.vectors[text.positions].T).amax(1).mean(1, keepdim=True)

    whole = Scored().requires_grad_(True)
    if tower == "test_vit":
        layer = whole.inner.image.body.blocks[-1].norm1
        side = model.grid[0]
        reshape = lambda x: x[:, 1:].reshape(len(x), side, side, -1).permute(0, 3, 1, 2)  # noqa: E731
    else:
        layer, reshape = whole.inner.image.body.bn2, None
    with GradCAM(whole, [layer], reshape_transform=reshape) as oracle:
        keeper = oracle.activations_and_grads
        keeper(picture)[0, 0].backward()
        drawn = oracle.get_cam_image(
            picture, layer, [], keeper.activations[0].numpy(), keeper.gradients[0].numpy()
        )
    raw = np.maximum(drawn[0], 0)
    np.testing.assert_allclose(found.similarity, (raw - raw.min()) / (raw.max() - raw.min()), atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tower", TOWERS)
def test_locked_towers_and_no_grad_change_nothing(kind, tower):
    model = copy.deepcopy(tiny(kind, tower))
    text = encode_label(model, "狐狸")
    picture = telling(model, text)
    (free,) = gradcam(model, picture, [text])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.image_locked = model.text_locked = True
    with torch.no_grad():
        (locked,) = gradcam(model, picture, [text])
    np.testing.assert_array_equal(free.similarity, locked.similarity)
    assert free.peak > 0
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_each_token_has_the_map_of_the_text_that_is_it_alone():
    model = tiny()
    text = encode_label(model, "狐狸")
    (whole,) = gradcam(model, pixels(), [text], by_token=True)
    assert whole.by_token.shape == (2, *whole.similarity.shape)
    for place, position in enumerate(text.positions):
        one = copy.copy(text)
        object.__setattr__(one, "positions", [position])
        (alone,) = gradcam(model, pixels(), [one])
        np.testing.assert_allclose(whole.by_token[place], alone.similarity, atol=1e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_attention_is_filips_by_the_letter(weighted):
    model = tiny(tower="test_vit")
    text = next(
        t
        for t in (encode_label(model, name) for name in ("狐狸", "红色", "一只狗在跑", "蓝色的天空"))
        if align(encode_patches(model, pixels())[0][0], t, model.grid).on_label.any()
    )
    (found,) = attention_cam(model, pixels(), [text], weighted=weighted)
    # The last block by hand, its attention a tensor of its own.
    body = copy.deepcopy(model.image.body)
    x = body.norm_pre(body.patch_drop(body._pos_embed(body.patch_embed(pixels()))))
    for block in body.blocks[:-1]:
        x = block(x)
    last = body.blocks[-1]
    inside = last.attn
    b, n, _ = x.shape
    q, k, v = inside.qkv(last.norm1(x)).reshape(b, n, 3, inside.num_heads, -1).permute(2, 0, 3, 1, 4)
    looks = (inside.q_norm(q) @ inside.k_norm(k).mT * inside.scale).softmax(-1).detach().requires_grad_()
    y = x + last.ls1(inside.proj((looks @ v).transpose(1, 2).reshape(b, n, -1)))
    out = body.norm(y + last.ls2(last.mlp(last.norm2(y))))[:, 1:]
    patches = torch.nn.functional.normalize(model.image_projection(out), dim=-1)[0]
    scores = patches @ text.vectors.T
    on = [p for p in range(len(patches)) if int(scores[p].argmax()) in text.positions]
    score = sum(scores[p].max() for p in on) / len(on)
    score.backward()
    weights = torch.relu(looks.detach() * looks.grad)[0] if weighted else looks.detach()[0]
    raw = np.array(
        [
            np.mean([np.mean([float(head[1 + p, 1 + place]) for head in weights]) for p in on])
            for place in range(len(patches))
        ]
    ).reshape(model.grid)
    assert raw.max() > 0
    np.testing.assert_allclose(found.similarity, stretched(raw), atol=1e-3)
    assert found.score == pytest.approx(float(score.detach()), abs=1e-5)
    assert model.image.body.blocks[-1].attn.fused_attn == body.blocks[-1].attn.fused_attn


def test_what_has_no_such_map():
    with pytest.raises(UsageError, match="--layer 7: the image tower has 6 blocks"):
        check_layer(tiny(), 7)
    with pytest.raises(UsageError, match="--layer 6: the image tower has 5 stages"):
        check_layer(tiny(tower="test_efficientnet"), 6)
    text = encode_label(tiny(tower="test_efficientnet"), "狐狸")
    with pytest.raises(UsageError, match="self-attention of a ViT"):
        attention_cam(tiny(tower="test_efficientnet"), pixels(), [text])
    with pytest.raises(UsageError, match="global"):
        attention_cam(tiny("global"), pixels(), [text])


def test_json_holds_the_whole_map():
    model = tiny()
    (found,) = gradcam(model, pixels(), [encode_label(model, "狐狸")], by_token=True)
    again = Alignment.of_json(found.as_json())
    assert again.as_json() == found.as_json()
    assert again.index is None
    broken = {**found.as_json(), "by_token": [[[0.0]]]}
    with pytest.raises(ValueError, match="maps of 2 tokens"):
        Alignment.of_json(broken)

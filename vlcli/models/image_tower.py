"""Image towers: any timm architecture, as patch tokens and a pooled vector."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import timm
import torch
from torch import Tensor, nn

from vlcli.errors import UsageError
from vlcli.models.class_token import class_token, has_class_token_apart
from vlcli.models.config import ImageTowerConfig


class ImageFeatures(NamedTuple):
    """What a tower says of a picture before the joint space."""

    tokens: Tensor  # (b, n1, c): patches in rows from the top left; the visual [CLS] is not among them
    pooled: Tensor  # (b, c): [CLS] where the tower has one, else the mean of the patches (Wukong Swin, ALIGN)


class TimmTower(nn.Module):
    """`tower(pixels (b, 3, h, w))` → `ImageFeatures`, for ViT (b, n, c), Swin (b, h, w, c) and convolutional
    (b, c, h, w) timm models. `width` is c."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.name, self.pooling = config.name, config.pooling
        arguments = dict(config.arguments)
        if _takes_image_size(config.name):
            arguments.setdefault("img_size", config.preprocess.size)
        if not timm.is_model(config.name):
            raise UsageError(f"no timm model is called {config.name!r}", remedy="see timm.list_models()")
        try:
            self.body = cast(
                Any, timm.create_model(config.name, pretrained=False, num_classes=0, **arguments)
            )
        except (TypeError, ValueError, AssertionError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"timm cannot build {config.name} with image.arguments: {cause}") from error
        self.width = int(self.body.num_features)
        self.prefix = int(getattr(self.body, "num_prefix_tokens", 0) or 0)
        # Registers alone are prefix tokens, too, and none of them stands for the picture.
        self.has_class = self.prefix > 0 and getattr(self.body, "cls_token", True) is not None
        if self.pooling == "cls" and not self.has_class:
            raise UsageError(f'image.pooling = "cls": {self.name} has no class token')
        self.left_out: tuple[
            str, ...
        ] = ()  # how the names of tensors begin that weights may hold beside the tower's
        self._depart_from_timm(config)
        norm = getattr(self.body, "fc_norm", None)
        self.pooled_norm = isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity)

    def _depart_from_timm(self, config: ImageTowerConfig) -> None:
        """What weights of the papers' models want otherwise than timm has it."""
        if config.eps is not None:
            for module in self.body.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = config.eps
        if not config.final_norm:
            if not isinstance(getattr(self.body, "norm", None), nn.LayerNorm):
                raise UsageError(f"image.final_norm = false: {self.name} has no last norm of its own")
            self.body.norm = nn.Identity()
            self.left_out += ("norm.",)
        if not config.head_conv:
            if not isinstance(getattr(self.body, "conv_head", None), nn.Conv2d):
                raise UsageError(
                    f"image.head_conv = false: {self.name} has no 1×1 convolution before pooling"
                )
            self.width = self.body.conv_head.in_channels
            self.body.conv_head = self.body.bn2 = nn.Identity()
            self.left_out += ("conv_head.", "bn2.")

    def forward(self, pixels: Tensor, *, pooled_only: bool = False) -> ImageFeatures:
        """With `pooled_only` there may be no tokens, (b, 0, c), where the pooled vector is had for less without."""
        if pooled_only and self.pooling != "mean" and has_class_token_apart(self.body):
            first = class_token(self.body, pixels)[:, None]
            return ImageFeatures(first[:, :0], self._pool(first, first[:, :0]))
        # Convolutions are two to three times as fast on a CPU with the channels last; transformers do not mind.
        out = self.body.forward_features(pixels.contiguous(memory_format=torch.channels_last))
        if out.dim() == 3:  # (b, prefix + n1, c)
            tokens = out[:, self.prefix :]
            return ImageFeatures(tokens, self._pool(out, tokens))
        if out.shape[-1] != self.width:  # (b, c, h, w)
            out = out.permute(0, 2, 3, 1)
        assert out.shape[-1] == self.width, f"{self.name} gives {tuple(out.shape)}, not {self.width} channels"
        tokens = out.flatten(1, 2)
        return ImageFeatures(tokens, self._pool(tokens, tokens))

    def _pool(self, all_tokens: Tensor, patches: Tensor) -> Tensor:
        pooled = all_tokens[:, 0] if self.has_class and self.pooling != "mean" else patches.mean(1)
        return self.body.fc_norm(pooled) if self.pooled_norm else pooled


def _takes_image_size(name: str) -> bool:
    """Transformers have positions or windows for one size and want to be told; convolutional models take any."""
    return any(part in name for part in ("vit", "swin", "deit", "eva", "beit"))


@torch.no_grad()
def grid_of(tower: TimmTower, image_size: int) -> tuple[int, int]:
    """(rows, columns) of the patch tokens of an `image_size` square picture."""
    device = next(tower.parameters()).device
    training = tower.training
    tower.eval()
    tokens = tower(torch.zeros(1, 3, image_size, image_size, device=device)).tokens
    tower.train(training)
    side = round(tokens.shape[1] ** 0.5)
    assert side * side == tokens.shape[1], f"{tokens.shape[1]} tokens of a square picture are no square grid"
    return side, side

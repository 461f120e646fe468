"""An image tower with a linear head: what a linear probe makes of a dual encoder, a checkpoint of kind "classifier"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlcli.images.preprocess import Preprocess
from vlcli.models.config import ClassifierConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import TimmTower


class Classifier(nn.Module):
    """`classifier(pixels (b, 3, h, w))` → logits (b, classes), of the tower's pooled output before any projection."""

    kind = "classifier"
    similarity_kind = "linear head"  # in place of what a dual encoder's results name

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocess = Preprocess(config.image.preprocess)
        self.image = TimmTower(config.image)
        self.head = nn.Linear(self.image.width, len(config.labels))
        self.checkpoint_hash = ""

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.image(pixels, pooled_only=True).pooled)
        return logits


@torch.no_grad()
def with_head(source: DualEncoder, labels: tuple[str, ...], weight: Tensor, bias: Tensor) -> Classifier:
    """The image tower of `source` with a head of `weight` (classes, c) and `bias` (classes,), in evaluation mode."""
    image = source.config.image.model_copy(update={"locked": False, "unlocked_from": None})
    model = Classifier(ClassifierConfig(image=image, labels=labels))
    model.image.load_state_dict(source.image.state_dict())
    model.head.weight.copy_(weight)
    model.head.bias.copy_(bias)
    return model.to(source.device).eval()

"""An image tower with a linear head: what learning classes makes of a dual encoder; its kind is "classifier"."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlcli.images.config import PreprocessConfig
from vlcli.images.preprocess import Preprocess
from vlcli.models.config import ClassifierConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import TimmTower
from vlcli.models.locking import keep_locked_in_evaluation
from vlcli.models.positions import resize_positions


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
        self.rates: dict[str, float] = {}  # the factor on the learning rate of each parameter
        self.checkpoint_hash = ""

    def learn(self, rate: float) -> Classifier:
        """Let the head learn, and the tower at `rate` times its learning rate; 0: the tower stays as it is."""
        self.image.requires_grad_(rate > 0)
        self.rates = {name: 1.0 if name.startswith("head.") else rate for name, _ in self.named_parameters()}
        return self.train()

    def train(self, mode: bool = True) -> Classifier:
        """Batch normalisation keeps its statistics (ALIGN §5.3), and a tower that does not learn is in evaluation."""
        super().train(mode)
        keep_locked_in_evaluation(self.image)
        for module in self.image.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

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


@torch.no_grad()
def classifier_at(
    source: DualEncoder | Classifier,
    labels: tuple[str, ...],
    train: PreprocessConfig,
    evaluation: PreprocessConfig | None = None,
) -> Classifier:
    """The tower of `source`, its positions brought to the resolution of `train`, with the head that it has, or with one
    of zeros."""
    image = source.config.image.model_copy(
        update={"locked": False, "unlocked_from": None, "preprocess": train}
    )
    apart = None if evaluation == train else evaluation
    model = Classifier(ClassifierConfig(image=image, labels=labels, evaluation=apart))
    state = resize_positions(source.image.body.state_dict(), model.image.body)
    model.image.body.load_state_dict(state)
    if isinstance(source, Classifier):
        assert source.config.labels == labels, "a head is of its own classes"
        model.head.load_state_dict(source.head.state_dict())
    else:
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model.to(source.device)


def for_evaluation(model: Classifier) -> Classifier:
    """`model` as it sees pictures where it does not learn, in evaluation mode: itself or a copy of that resolution."""
    seen = model.config.evaluation
    if seen is None:
        return model.eval()
    return classifier_at(model, model.config.labels, seen).eval()

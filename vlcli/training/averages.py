"""A moving average of the weights (EMA): what is validated and loaded is smoother than what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def moving(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters, and buffers of real numbers (the statistics of batch norms)."""
    found = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    stored = model.state_dict().keys()
    found |= {n: b for n, b in model.named_buffers() if n in stored and b.is_floating_point()}
    return found


class Averages:
    """`decay` · average + (1 − `decay`) · weights after each step, starting from the weights as they are.

    After step t the decay is at most (1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage: or the average of
    a short run would be of little but its beginning.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: x.clone() for name, x in moving(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, x in moving(model).items():
            self.tensors[name].mul_(decay).add_(x, alpha=1 - decay)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Meanwhile the model has the averages. Nothing is copied."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        for name, x in [*model.named_parameters(), *model.named_buffers()]:
            if name in self.tensors:
                x.data, self.tensors[name] = self.tensors[name], x.data

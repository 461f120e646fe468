"""Gradient checkpointing: layers of a tower that are computed a second time in place of being remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlcli.models.locking import is_locked, layer_names


class _Recomputed:
    """In place of a layer's `forward`: keeps what goes into the layer alone. The second time it draws the same random
    numbers, and running statistics do not move again. An object and no closure, so that a copy of the layer has its
    own."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        forward = partial(type(self.layer).forward, self.layer)
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        return checkpoint(
            forward,
            *arguments,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), statistics_kept(self.layer)),
            **options,
        )


def recompute_layers(tower: nn.Module) -> int:
    """Every layer of a tower of which a parameter learns gives up what it computed until its gradient is asked for;
    returns how many did: 0 where no parameter's name tells a layer."""
    layers = [tower.get_submodule(name) for name in layer_names(name for name, _ in tower.named_parameters())]
    layers = [layer for layer in layers if not is_locked(layer)]
    for layer in layers:
        layer.forward = _Recomputed(layer)
    return len(layers)


def statistics(module: nn.Module) -> list[Tensor]:
    """The running means and variances of batch normalisation that move when `module` is called: of what learns."""
    return [
        buffer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
        for buffer in layer.buffers(recurse=False)
    ]


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within, `module` may be called once more without being told the batch twice."""
    moving = statistics(module)
    before = [buffer.clone() for buffer in moving]
    try:
        yield
    finally:
        for buffer, value in zip(moving, before, strict=True):
            buffer.data.copy_(value)  # by .data: a graph that saw the buffer does not read it again

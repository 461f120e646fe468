"""Features of all processes, with gradient: one path (local loss, gradient through the gather)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.training.processes import world_size


class _Gather(torch.autograd.Function):
    """(b, …) on each process → (world · b, …) on all. Backward: what every process's loss wants of my rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


def gather_images(image: ImageTokens) -> ImageTokens:
    """Local (b, …) → global (N, …), rank 0's rows first."""
    if world_size() == 1:
        return image
    return ImageTokens(*(None if x is None else _Gather.apply(x) for x in image))


def gather_texts(text: TextTokens) -> TextTokens:
    """As gather_images; texts are padded to the longest of all processes first."""
    if world_size() == 1:
        return text
    longest = torch.tensor(text.mask.shape[1], device=text.mask.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    missing = int(longest) - text.mask.shape[1]
    tokens = None if text.tokens is None else _Gather.apply(F.pad(text.tokens, (0, 0, 0, missing)))
    masks = [
        _Gather.apply(F.pad(m.to(torch.uint8), (0, missing))).bool() for m in (text.mask, text.content_mask)
    ]
    pooled = None if text.pooled is None else _Gather.apply(text.pooled)
    return TextTokens(tokens, masks[0], masks[1], pooled)

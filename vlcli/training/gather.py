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
    """(b, …) on each process → (world · b, …) on all, sent as `wire` says. Backward: what every process's loss wants
    of my rows, never rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: torch.dtype) -> Tensor:
        ctx.rows = x.shape[0]
        mine = x.to(wire).contiguous()
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine)
        return torch.cat(parts).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows], None


def _gather(x: Tensor | None, half: bool = False) -> Tensor | None:
    if x is None:
        return None
    return _Gather.apply(x, torch.float16 if half else x.dtype)


def gather(x: Tensor) -> Tensor:
    """Local (b, …) → global (N, …), rank 0's rows first, with gradient."""
    return x if world_size() == 1 else _Gather.apply(x, x.dtype)


def gather_images(image: ImageTokens, *, half: bool = False) -> ImageTokens:
    """Local (b, …) → global (N, …), rank 0's rows first; with `half` they travel as fp16 (FILIP §3.1.1)."""
    if world_size() == 1:
        return image
    return ImageTokens(*(_gather(x, half) for x in image))


def gather_texts(text: TextTokens, *, half: bool = False) -> TextTokens:
    """As gather_images; texts are padded to the longest of all processes first."""
    if world_size() == 1:
        return text
    longest = torch.tensor(text.mask.shape[1], device=text.mask.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    missing = int(longest) - text.mask.shape[1]
    tokens = None if text.tokens is None else F.pad(text.tokens, (0, 0, 0, missing))
    mask, content_mask = (
        _Gather.apply(F.pad(m.to(torch.uint8), (0, missing)), torch.uint8).bool()
        for m in (text.mask, text.content_mask)
    )
    return TextTokens(_gather(tokens, half), mask, content_mask, _gather(text.pooled, half))

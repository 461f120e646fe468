"""Features of all processes, with gradient: one path (local loss, gradient through the gather)."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.training.processes import of_all, world_size

T = TypeVar("T", Tensor, Tensor | None)


class _Gather(torch.autograd.Function):
    """(b, …) on each process → (N, …) on all, sent as `wire` says; `shares` are all processes' b. Backward: what every
    process's loss wants of my rows, never rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: list[int], wire: torch.dtype) -> Tensor:
        ctx.shares = shares
        most = max(shares)
        mine = F.pad(x.to(wire), [0, 0] * (x.dim() - 1) + [0, most - len(x)]).contiguous()
        parts = [torch.empty_like(mine) for _ in shares]
        dist.all_gather(parts, mine)
        return torch.cat([part[:share] for part, share in zip(parts, shares, strict=True)]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.split(ctx.shares)[dist.get_rank()], None, None


def gather(x: Tensor) -> Tensor:
    """Local (b, …) → global (N, …), rank 0's rows first, with gradient."""
    if world_size() == 1:
        return x
    return _gather(x, [rows for (rows,) in of_all([len(x)], x.device)], half=False)


def gather_images(image: ImageTokens, *, half: bool = False) -> ImageTokens:
    """Local (b, …) → global (N, …), rank 0's rows first; with `half` they travel as fp16 (FILIP §3.1.1).

    b may differ between processes: N is the sum. Shorter shares are padded on the way, and nothing of it arrives."""
    if world_size() == 1:
        return image
    some = image.tokens if image.pooled is None else image.pooled
    assert some is not None
    shares = [rows for (rows,) in of_all([len(some)], some.device)]
    return ImageTokens(*(_gather(x, shares, half) for x in image))


def gather_texts(text: TextTokens, *, half: bool = False) -> TextTokens:
    """As gather_images; texts are padded to the longest of all processes first."""
    if world_size() == 1:
        return text
    sizes = of_all(list(text.mask.shape), text.mask.device)
    shares = [rows for rows, _ in sizes]
    missing = max(length for _, length in sizes) - text.mask.shape[1]
    tokens = None if text.tokens is None else F.pad(text.tokens, (0, 0, 0, missing))
    mask, content_mask = (
        _Gather.apply(F.pad(m.to(torch.uint8), (0, missing)), shares, torch.uint8).bool()
        for m in (text.mask, text.content_mask)
    )
    return TextTokens(_gather(tokens, shares, half), mask, content_mask, _gather(text.pooled, shares, half))


def _gather(x: T, shares: list[int], half: bool) -> T:
    if x is None:
        return x
    return _Gather.apply(x, shares, torch.float16 if half else x.dtype)

"""Which precision a device computes in."""

from __future__ import annotations

from typing import Any

import torch

from vlcli.errors import UsageError


def settled(precision: str, device: torch.device) -> str:
    """fp32, bf16 or fp16; "auto" is bf16 where it is native. UsageError for fp16 without CUDA.

    A CPU without instructions for bf16 imitates them: the backward pass of the quick start then takes 25 times as long
    as in fp32.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UsageError("fp16 trains on a CUDA device alone", remedy="--precision fp32")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    cpu: Any = torch.cpu
    native = device.type == "cpu" and (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
    return "bf16" if native else "fp32"

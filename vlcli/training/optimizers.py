"""Optimizers as the papers name them, and which parameters weight decay leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.optim.lamb import Lamb
from torch import nn

from vlcli.recipes import OptimizerConfig

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def kinds(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, str]]:
    """(name, parameter, kind) of every trainable parameter. Kinds: temperature, token_embedding,
    positional_embedding, norm, bias, weight; a norm's bias is of kind norm."""
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner, _, leaf = name.rpartition(".")
        if leaf == "log_scale":
            kind = "temperature"
        elif "positional_embedding" in name or "pos_embed" in name:
            kind = "positional_embedding"
        elif isinstance(owners[owner], nn.Embedding):
            kind = "token_embedding"
        elif isinstance(owners[owner], NORMS):
            kind = "norm"
        elif leaf.endswith("bias"):
            kind = "bias"
        else:
            kind = "weight"
        yield name, parameter, kind


def parameter_groups(
    model: nn.Module, config: OptimizerConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two groups, decayed and not, and a report: for each kind its tensors, parameters and decay."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    report: dict[str, dict[str, Any]] = {}
    for _, parameter, kind in kinds(model):
        spare = kind in config.no_decay
        (spared if spare else decayed).append(parameter)
        row = report.setdefault(
            kind,
            {"kind": kind, "tensors": 0, "parameters": 0, "decay": 0.0 if spare else config.weight_decay},
        )
        row["tensors"] += 1
        row["parameters"] += parameter.numel()
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]], list(report.values())


def build_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW, or LAMB as FILIP and Wukong used it (the public pytorch-lamb that FILIP names): the trust ratio for every
    tensor, decayed or not, no bias correction, and no gradient clipping inside the optimizer. A tensor or an update
    of length zero has ratio 1, as timm does it. The rate is set at every step by the schedule."""
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps)
    return Lamb(
        groups,
        lr=0.0,
        betas=config.betas,
        eps=config.eps,
        bias_correction=False,
        always_adapt=True,
        max_grad_norm=None,
    )

"""Optimizers as the papers name them, and which parameters weight decay leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vlcli.schemas.classification import SgdConfig
from vlcli.schemas.parts import OptimizerConfig
from vlcli.training.lamb import Lamb

# Where a position is written into a parameter's name: ours, timm's ViTs, timm's Swins, transformers' encoders.
POSITIONS = ("positional_embedding", "pos_embed", "relative_position", "position_embeddings")


def kinds(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, str]]:
    """(name, parameter, kind) of every trainable parameter. Kinds: temperature, token_embedding,
    positional_embedding, norm, bias, weight; a norm's bias is of kind norm, and a class token is a weight: the papers
    do not spare it."""
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner, _, leaf = name.rpartition(".")
        if leaf == "log_scale":
            kind = "temperature"
        elif any(part in name for part in POSITIONS):
            kind = "positional_embedding"
        elif (
            isinstance(owners[owner], nn.Embedding) or leaf == "patch_mask"
        ):  # in place of a patch's embedding
            kind = "token_embedding"
        elif "norm" in type(owners[owner]).__name__.lower():  # torch's and timm's share no base class
            kind = "norm"
        elif leaf.endswith("bias"):
            kind = "bias"
        else:
            kind = "weight"
        yield name, parameter, kind


def parameter_groups(
    model: nn.Module, config: OptimizerConfig | SgdConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Groups of one decay and one `rate` (the factor on the schedule's rate; models/locking.py), and a report: for each
    kind its tensors, parameters and decay."""
    rates = getattr(model, "rates", {})
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    report: dict[str, dict[str, Any]] = {}
    for name, parameter, kind in kinds(model):
        spare, rate = kind in config.no_decay, rates.get(name, 1.0)
        decay = 0.0 if spare else config.weight_decay
        group = groups.setdefault((rate, spare), {"params": [], "weight_decay": decay, "rate": rate})
        group["params"].append(parameter)
        row = report.setdefault(kind, {"kind": kind, "tensors": 0, "parameters": 0, "decay": decay})
        row["tensors"] += 1
        row["parameters"] += parameter.numel()
    return [groups[key] for key in sorted(groups, key=lambda key: (-key[0], key[1]))], list(report.values())


def build_optimizer(
    groups: list[dict[str, Any]], config: OptimizerConfig | SgdConfig
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, torch's), LAMB as FILIP used it, or SGD with momentum. The schedule sets the
    rate at every step."""
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
    if config.name == "adamw":
        # One pass over each tensor instead of a dozen: a ninth of the time, on a CPU too.
        return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)
    return Lamb(groups, lr=0.0, betas=config.betas, eps=config.eps)

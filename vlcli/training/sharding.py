"""Weights that processes share out among themselves (FSDP), and put together again for whoever looks at them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from vlcli.errors import UsageError

HALF = {"bf16": torch.bfloat16}  # what is not fp32; the scaler of fp16 reads whole gradients


def asked_for() -> FullyShardedDataParallelPlugin | None:
    """What `accelerate launch --use_fsdp` says, by torch's fully_shard whatever version it names; None without it."""
    said = os.environ
    if said.get("ACCELERATE_USE_FSDP", "false").lower() != "true" or int(said.get("WORLD_SIZE", "1")) == 1:
        return None
    kept = said.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("false", "no_shard", "shard_grad_op")
    return FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=not kept, cpu_ram_efficient_loading=False
    )


def make_ready(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin, model: nn.Module) -> None:
    """Have `accelerator.prepare` share out `model`: block by block, and all of it but numbers that stand alone."""
    state: Any = accelerator.state
    if accelerator.distributed_type != DistributedType.FSDP:  # accelerate leaves CPUs out, torch does not
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
    plugin = state.fsdp_plugin
    assert plugin is not None
    if accelerator.mixed_precision == "fp16":
        raise UsageError("fp16 does not go with FSDP", remedy="--precision bf16")
    if plugin.activation_checkpointing:
        raise UsageError("fsdp_activation_checkpointing is not understood here", remedy="leave it out")
    if (
        plugin.auto_wrap_policy in (None, transformer_auto_wrap_policy)
        and not plugin.transformer_cls_names_to_wrap
    ):
        plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in _blocks(model)})
        plugin.auto_wrap_policy = transformer_auto_wrap_policy
    if accelerator.mixed_precision in HALF:  # autocast decides what is computed in it
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=HALF[accelerator.mixed_precision],
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
    alone = nn.Module()  # a temperature cannot be cut: everybody has it, and the mean of its gradients
    for number, parameter in enumerate(p for p in model.parameters() if p.dim() == 0):
        alone.register_parameter(str(number), parameter)
        if parameter.requires_grad:
            parameter.register_hook(_mean)
    plugin.ignored_modules = [alone]
    for module in model.modules():  # or processes would call a block a different number of times
        if hasattr(module, "in_one_pass"):
            setattr(module, "in_one_pass", True)  # noqa: B010 (mypy takes it for a tensor)


def _mean(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    dist.all_reduce(gradient)
    return gradient / dist.get_world_size()


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """What stands in a row of its like, such as the layers of a transformer; nothing that is inside another."""
    for module in model.children():
        row = list(module.children()) if isinstance(module, nn.ModuleList | nn.Sequential) else []
        alike = len(row) > 1 and len({type(child) for child in row}) == 1
        if alike and not isinstance(row[0], nn.ModuleList | nn.Sequential) and list(row[0].parameters()):
            yield from row
        else:
            yield from _blocks(module)


def clip_grad_norm(parameters: list[Tensor], bound: float) -> Tensor:
    """torch's clip_grad_norm_ () over all processes' parts, and over what is whole on each."""
    parts = [p for p in parameters if isinstance(p, DTensor)]
    if not parts:
        return torch.nn.utils.clip_grad_norm_(parameters, bound)
    rest = [p.grad for p in parameters if p.grad is not None and not isinstance(p, DTensor)]
    of_parts = torch.nn.utils.get_total_norm([p.grad for p in parts if p.grad is not None])
    assert isinstance(of_parts, DTensor)
    norm = torch.nn.utils.get_total_norm([of_parts.full_tensor(), *rest])
    torch.nn.utils.clip_grads_with_norm_(parts, bound, norm)
    torch.nn.utils.clip_grads_with_norm_([p for p in parameters if not isinstance(p, DTensor)], bound, norm)
    return norm


class Autocast(nn.Module):
    """A sharded model under the accelerator's autocast: accelerate has none there."""

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        super().__init__()
        self.model, self.accelerator = model, accelerator

    def forward(self, *arguments: Any, **options: Any) -> Any:
        kind = HALF.get(self.accelerator.mixed_precision)
        with torch.autocast(self.accelerator.device.type, dtype=kind, enabled=kind is not None):
            return self.model(*arguments, **options)


def whole(value: Any, *, keep: bool = True) -> Any:
    """`value` with every sharded tensor in it put together, on the CPU. All processes must call it; those that do not
    `keep` it get None for these tensors, and no more memory is taken than for one of them."""
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, dict):
        return {name: whole(part, keep=keep) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(part, keep=keep) for part in value)
    return value


def put(target: Tensor, value: Tensor) -> None:
    """Write a whole tensor into `target`, of which each process may have a part."""
    with torch.no_grad():
        target.copy_(like(target, value))


def like(target: Tensor, value: Tensor) -> Tensor:
    """A whole tensor shared out as `target` is."""
    if not isinstance(target, DTensor):
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `whole(optimizer.state_dict())` was, shared out as the parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shared = {
        index: {
            name: like(parameters[index], x)
            if torch.is_tensor(x) and x.shape == parameters[index].shape
            else x
            for name, x in entry.items()
        }
        for index, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shared})

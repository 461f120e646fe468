"""Processes of one run act as one: what rank 0 decides all do, what one meets all know. Alone, nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def fail(error: Exception) -> NoReturn:
    """Raise what every process met: rank 0 says it, the others end with the same exit code."""
    if rank() == 0:
        raise error
    raise SystemExit(getattr(error, "exit_code", 1))


def on_main(function: Callable[[], T]) -> T:
    """Run `function` on rank 0 alone and give its result (or its failure) to all: none is left waiting."""
    if world_size() == 1:
        return function()
    answer: list[Any] = [None, None]  # result, error
    if rank() == 0:
        try:
            answer[0] = function()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        fail(answer[1])
    return answer[0]


def of_all(numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """As many integers of each process, rank by rank."""
    mine = torch.tensor(list(numbers), device=device)
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    if len(parts) == 1:
        return [list(numbers)]
    dist.all_gather(parts, mine)
    return torch.stack(parts).tolist()


def mean(values: Tensor) -> Tensor:
    """Element by element over processes; not finite anywhere is not finite everywhere."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def anywhere(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Whether any process says so, of each question. A signal does not reach all of them in the same step."""
    if world_size() == 1:
        return list(flags)
    values = torch.tensor([int(flag) for flag in flags], device=device)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]

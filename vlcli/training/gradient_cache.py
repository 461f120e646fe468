"""Large batches on small memory: a batch goes through the towers chunk by chunk and through the loss whole (GradCache,
Gao et al. 2021).

First every chunk is encoded without a graph. The loss of all features gives the gradient of each; then every chunk is
encoded again, with a graph, and passes the gradients of its features on. What a step costs more is the first encoding;
what it holds is the graph of one chunk and the features of all. Gradients are those of the direct step: the towers'
exactly, what comes after them (selection of tokens, gathering, similarity, temperature) because it is the direct step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlcli.models.dual import ImageTokens, TextTokens, cat
from vlcli.models.recompute import statistics_kept
from vlcli.training.engine import Outcome
from vlcli.training.processes import world_size


class Encoded(NamedTuple):
    """What `DualEncoder.forward` gives of a share of a batch: features in the joint space, after the projections and
    token reduction, and 1/τ."""

    image: ImageTokens
    text: TextTokens
    scale: Tensor

    def tensors(self) -> list[Tensor]:
        """What the loss has a gradient for, row by row."""
        return [x for x in (*self.image, self.text.tokens, self.text.pooled) if x is not None]


def chunked(
    accelerator: Accelerator,
    model: nn.Module,
    pairs: int,
    chunk: int,
    encode: Callable[[slice], Encoded],
    compare: Callable[[Encoded], Outcome],
) -> Outcome:
    """The outcome of a step on a process's `pairs`, `chunk` of them at a time, and how to go back from it.

    `encode(rows)` calls `model`, as it is wrapped for many processes; `compare` is everything after it. Processes take
    as many chunks as the one with most pairs needs, and DDP exchanges the gradients of parameters once, in the last.
    Each chunk draws the same random numbers in both passes, and running statistics move in the second alone.
    """
    count = -(-_most(pairs, accelerator.device) // chunk)
    if count == 1:
        return compare(encode(slice(0, pairs)))
    bounds = [pairs * number // count for number in range(count + 1)]
    slices = [slice(*ends) for ends in pairwise(bounds)]
    states, parts = [], []
    with torch.no_grad(), statistics_kept(model):
        for rows in slices:
            states.append(_random_state(accelerator.device))
            parts.append(encode(rows))
    images, texts, scales = zip(*parts, strict=True)
    whole = Encoded(cat(images), cat(texts), scales[0].detach().requires_grad_())
    for tensor in whole.tensors():
        tensor.requires_grad_()
    outcome = compare(whole)

    def backward() -> None:
        outcome.loss.backward()
        for number, (state, rows) in enumerate(zip(states, slices, strict=True), start=1):
            last = number == count
            _set_random_state(state, accelerator.device)
            # FSDP adds up what it scatters, and has nothing to wait for
            with (
                model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
            ):
                part = encode(rows)
                terms = [
                    (mine * theirs.grad[rows]).sum()
                    for mine, theirs in zip(part.tensors(), whole.tensors(), strict=True)
                    if mine.requires_grad and theirs.grad is not None
                ]
                if last and part.scale.requires_grad and whole.scale.grad is not None:
                    terms.append(part.scale * whole.scale.grad)
                accelerator.backward(torch.stack(terms).sum())

    return outcome._replace(backward=backward)


def _most(pairs: int, device: torch.device) -> int:
    """The pairs of the process that has most: with uneven shares all must go through the towers equally often."""
    if world_size() == 1:
        return pairs
    most = torch.tensor(pairs, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def _random_state(device: torch.device) -> Any:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: Any, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)

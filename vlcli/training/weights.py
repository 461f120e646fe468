"""The weights of a run: as they are trained, as they are judged and saved, and as a run that goes on finds them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn

from vlcli.training.averages import Averages, moving
from vlcli.training.sharding import Autocast, load_optimizer, make_ready, put, whole


class Weights:
    """Model and optimizer made ready for `accelerator`'s processes: `wrapped` is what a step goes through.

    With `ema` what is judged and saved are the moving averages. Where processes share the weights out, the main one has
    a whole copy of the model for it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        sharding: FullyShardedDataParallelPlugin | None,
        *,
        ema: float,
    ) -> None:
        self.model, self.optimizer, self.accelerator = model, optimizer, accelerator
        self.main = accelerator.is_main_process
        self.sharded = sharding is not None
        self._copy: Any = None
        if sharding is not None:
            self._copy = copy.deepcopy(model).cpu() if self.main else None
            make_ready(accelerator, sharding, model)
        self.wrapped, self.stepper = accelerator.prepare(model, optimizer)
        if self.sharded:
            self.wrapped = Autocast(self.wrapped, accelerator)
        self.averages = Averages(model, ema) if ema and (self.main or self.sharded) else None

    def values(self) -> dict[str, float]:
        """What a log line shows of how they are trained."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else {"loss_scale": scaler.get_scale()}

    def stepped(self, step: int) -> None:
        """After `step` steps."""
        if self.averages is not None:
            self.averages.update(self.model, step)

    @contextmanager
    def judged(self, task: Any) -> Iterator[None]:
        """Meanwhile the main process's `task.model` is whole, and averaged where averages are asked for. All processes
        must enter."""
        if not self.sharded:
            if self.averages is None:
                yield
            else:
                with self.averages.in_place(self.model):
                    yield
            return
        tensors = self.model.state_dict() | (self.averages.tensors if self.averages else {})
        tensors = whole(tensors, keep=self.main)
        if not self.main:
            yield
            return
        self._copy.load_state_dict(tensors)
        del tensors
        task.model = self._copy.to(self.accelerator.device).train(self.model.training)
        try:
            yield
        finally:
            task.model = self.model
            self._copy.cpu()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry beside the model that is saved. All processes must call it; the main one's is
        whole."""
        raw = None
        if self.averages is not None:
            raw = whole(moving(self.model), keep=self.main)
        scaler = self.accelerator.scaler
        return {
            "optimizer": whole(self.optimizer.state_dict(), keep=self.main),
            "scaler": None if scaler is None else scaler.state_dict(),
            "weights": raw,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The model has the checkpoint's weights already; the average starts as them."""
        load_optimizer(self.optimizer, state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if state["weights"] is not None:
            for name, x in moving(self.model).items():
                put(x, state["weights"][name])

"""The learning rate as a function of the step: no state, so that a resumed run cannot be off by one."""

from __future__ import annotations

import math

from vlcli.schemas.classification import ClassifyScheduleConfig
from vlcli.schemas.parts import ScheduleConfig


def learning_rate(
    step: int, total: int, peak: float, config: ScheduleConfig | ClassifyScheduleConfig
) -> float:
    """Rate of step 0 … total − 1: linear warm-up that reaches `peak` at step `warmup_steps` − 1, then cosine or linear
    to 0 at step `total`, or constant, or falling by a factor after every so many epochs, counted from step 0. A warm-up
    longer than the run is cut to it."""
    warmup = min(config.warmup_steps, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.name == "constant" or total <= warmup:
        return peak
    if config.name == "step":
        assert isinstance(config, ClassifyScheduleConfig)
        return peak * config.factor ** (step * config.epochs // total // config.every)
    progress = (step - warmup) / (total - warmup)
    if config.name == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))

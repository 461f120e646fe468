"""The schema of recipes of `finetune --task diffusion-kv`: those with a table `[diffusion]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlcli.models.config import Settings
from vlcli.models.key_values_config import States
from vlcli.schemas.parts import OptimizerConfig, PairsConfig, ScheduleConfig, TrainConfig


class DiffusionConfig(Settings):
    """Keys and values of a UNet's cross-attention (AltCLIP §5.4). `states`: what the UNet reads of a text
    (models/conditioner.py). `empty`: the share of texts that are left empty, so that guidance has something to compare
    with. `size`: pixels on a side; without it those that the UNet was made for."""

    states: States = "head"
    empty: float = Field(0.1, ge=0, lt=1)
    size: int | None = Field(None, ge=8)


class KeyValuesDataConfig(PairsConfig):
    batch_size: int = Field(512, ge=1)


class KeyValuesTrainConfig(TrainConfig):
    """`best`: the lowest loss on the validation pairs, each with a noise and a time of its own, always the same."""

    best: Literal["loss"] = "loss"


class KeyValuesRecipe(Settings):
    """Fine-tuning of a diffusion model's keys and values, as data."""

    name: str
    title: str = ""
    source: str = ""
    diffusion: DiffusionConfig = DiffusionConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    data: KeyValuesDataConfig = KeyValuesDataConfig()
    train: KeyValuesTrainConfig = KeyValuesTrainConfig()

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of warm-up."""
        return self.optimizer.peak(self.data.batch_size)

    def steps(self, pairs: int) -> int:
        """Steps of the run on that many pairs."""
        return self.schedule.total(self.data.steps_per_epoch(pairs))

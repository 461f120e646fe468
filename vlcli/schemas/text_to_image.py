"""The schema of recipes of `finetune --task t2i`: what the stages prior and decoder train (the stage clip is a run like
those of retrieval, and has the schema of one).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlcli.models.config import Settings
from vlcli.models.diffusion_config import DecoderShape, PriorShape
from vlcli.schemas.parts import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig


class DenoisingConfig(Settings):
    """Mean squared error of what the model says of noisy samples. `drop`: the share of pairs whose condition is left
    out, so that the model can be guided away from what it says without one."""

    drop: float = Field(0.1, ge=0, lt=1)


class WholeDataConfig(DataConfig):
    """As of `pretrain`, of pictures as they are: a locked encoder has seen each of them once."""

    augment: Literal["none"] = "none"
    group: Literal[""] = ""


class DiffusionTrainConfig(TrainConfig):
    """`chunk` pairs at a time go through the model of a process, and their gradients add up (0: all at once). `best`:
    the loss on the validation rows; of a prior also the recall of its embeddings ("R@1")."""

    chunk: int = Field(0, ge=0)
    best: Literal["loss"] = "loss"


class PriorTrainConfig(DiffusionTrainConfig):
    """`sample_steps`: in how many steps a validation draws the embeddings whose recall it takes."""

    sample_steps: int = Field(10, ge=1)
    best: Literal["loss", "R@1"] = "loss"  # type: ignore[assignment]


class _DiffusionRecipe(Settings):
    name: str
    title: str = ""
    source: str = ""  # paper and section that the values are from
    objective: DenoisingConfig = DenoisingConfig()
    optimizer: OptimizerConfig = OptimizerConfig(name="adamw", lr_rule="fixed", lr=1e-4)
    schedule: ScheduleConfig = ScheduleConfig()
    data: WholeDataConfig = WholeDataConfig()

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of warm-up."""
        return self.optimizer.peak(self.data.batch_size)

    def steps(self, pairs: int) -> int:
        """Steps of the run on that many pairs."""
        return self.schedule.total(self.data.steps_per_epoch(pairs))


class PriorRecipe(_DiffusionRecipe):
    """A run that trains a prior, as data."""

    stage: Literal["prior"]
    model: PriorShape = PriorShape()
    train: PriorTrainConfig = PriorTrainConfig()


class DecoderRecipe(_DiffusionRecipe):
    """A run that trains a decoder, as data."""

    stage: Literal["decoder"]
    model: DecoderShape = DecoderShape()
    train: DiffusionTrainConfig = DiffusionTrainConfig()


DiffusionRecipe = PriorRecipe | DecoderRecipe
STAGES: dict[str, type[PriorRecipe] | type[DecoderRecipe]] = {"prior": PriorRecipe, "decoder": DecoderRecipe}

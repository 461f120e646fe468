"""The schema of recipes that train classifiers (`finetune --task classify`, ALIGN §5.3): every key there is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from vlcli.images.config import Augmentation, PreprocessConfig
from vlcli.models.config import Settings
from vlcli.schemas.parts import CROP_AREA, TrainConfig

Stage = Literal["head", "all"]


class HeadConfig(Settings):
    """The head alone, on features that stay as they are. `lr` is the peak. `size` of pictures in training and
    `eval_size` in evaluation, in pixels; unset: the checkpoint's, and `size`."""

    lr: float = Field(0.1, gt=0)
    size: int | None = Field(None, ge=8)
    eval_size: int | None = Field(None, ge=8)


class AllLayersConfig(HeadConfig):
    """All layers. `lr` is the head's, and `rate` times it that of the tower."""

    lr: float = Field(0.01, gt=0)
    rate: float = Field(0.1, gt=0)


class SgdConfig(Settings):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013, torch's). `no_decay` as of other recipes."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    no_decay: tuple[
        Literal["bias", "norm", "token_embedding", "positional_embedding", "temperature"], ...
    ] = ()
    clip_grad_norm: float | None = Field(None, gt=0)


class ClassifyScheduleConfig(Settings):
    """Of each stage. "step": the rate times `factor` after every `every` epochs; "cosine" to 0, or "constant"; behind a
    linear warm-up of `warmup_steps`. `steps` wins over `epochs`; the rate then falls at the same shares of the run."""

    name: Literal["step", "cosine", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    epochs: int = Field(100, ge=1)
    steps: int | None = Field(None, ge=1)
    every: int = Field(30, ge=1)
    factor: float = Field(0.2, gt=0, le=1)

    def total(self, steps_per_epoch: int) -> int:
        """Steps of a stage."""
        return self.steps or self.epochs * steps_per_epoch


class ClassifyDataConfig(Settings):
    """`batch_size` is global; what an epoch leaves over is a smaller batch with `last` "keep". `augment` and
    `crop_area` as of other recipes. `crop_ratio`: the share of the shorter side that the central crop of evaluation
    takes; 1 where pictures are seen as the checkpoint sees them."""

    batch_size: int = Field(256, ge=1)
    augment: Augmentation = "resized-crop"
    crop_area: tuple[float, float] = CROP_AREA
    crop_ratio: float = Field(0.875, gt=0, le=1)
    workers: int = Field(4, ge=0)
    last: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _shares_of_a_picture(self) -> ClassifyDataConfig:
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError("crop_area is not two shares of a picture, the smaller one first")
        if self.augment != "resized-crop" and self.crop_area != CROP_AREA:
            raise ValueError('crop_area belongs to augment = "resized-crop"')
        return self

    @property
    def epoch_pairs(self) -> None:
        """An epoch is all of the rows."""

    def steps_per_epoch(self, pairs: int) -> int:
        """Batches of an epoch of that many rows."""
        whole, left = divmod(pairs, self.batch_size)
        return whole + (self.last == "keep" and left > 0)


class TrialsConfig(Settings):
    """A search before the run (VTAB): at most `count` points of the grid, drawn by the seed without repetition, each
    trained on the training rows and measured on the validation rows at its end; the best is trained again on both.
    `grid`: keys of this recipe, such as "all.lr", and their values."""

    count: int = Field(50, ge=1)
    grid: dict[str, tuple[Any, ...]]

    @model_validator(mode="after")
    def _something_to_try(self) -> TrialsConfig:
        if empty := [key for key, values in self.grid.items() if not values]:
            raise ValueError(f"grid: {empty[0]} has no values")
        if not self.grid:
            raise ValueError("grid has no keys")
        return self


class ClassifyTrainConfig(TrainConfig):
    """`best`: the number of a validation that chooses, of the rows or as a mean over classes."""

    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    best: Literal["top1", "mean_per_class"] = "top1"  # type: ignore[assignment]


class ClassifyRecipe(Settings):
    """A classifier's training, as data: a recipe with a key `stages`, which are gone through in their order."""

    name: str
    title: str = ""
    source: str = ""
    stages: tuple[Stage, ...]
    head: HeadConfig = HeadConfig()
    all: AllLayersConfig = AllLayersConfig()
    optimizer: SgdConfig = SgdConfig()
    schedule: ClassifyScheduleConfig = ClassifyScheduleConfig()
    data: ClassifyDataConfig = ClassifyDataConfig()
    train: ClassifyTrainConfig = ClassifyTrainConfig()
    trials: TrialsConfig | None = None

    @model_validator(mode="after")
    def _in_order(self) -> ClassifyRecipe:
        if self.stages not in (("head",), ("all",), ("head", "all")):
            raise ValueError('stages is one of ["head"], ["all"], ["head", "all"]')
        return self

    def at(self, stage: Stage) -> StageRecipe:
        """What one of the stages trains by."""
        return StageRecipe(**dict(self), stage=stage)

    def steps(self, rows: int) -> int:
        """Steps of each stage on that many rows."""
        return self.schedule.total(self.data.steps_per_epoch(rows))

    def preprocessing(
        self, stage: Stage, checkpoint: PreprocessConfig
    ) -> tuple[PreprocessConfig, PreprocessConfig]:
        """What pictures go through in a stage's training and in evaluation, for a checkpoint that has its own."""
        sizes: HeadConfig = self.all if stage == "all" else self.head
        size, ratio = sizes.size or checkpoint.size, self.data.crop_ratio
        kept = checkpoint.model_dump() | {"resize": None}
        seen: dict[str, Any] = {"size": sizes.eval_size or size}
        if ratio < 1:
            seen |= {"fit": "crop", "resize": round(seen["size"] / ratio)}
        elif checkpoint.resize is not None:
            seen |= {"resize": round(checkpoint.resize * seen["size"] / checkpoint.size)}
        return PreprocessConfig(**kept | {"size": size}), PreprocessConfig(**kept | seen)


class StageRecipe(ClassifyRecipe):
    """One stage of a recipe: what the engine runs."""

    stage: Stage

    @property
    def rate(self) -> float:
        """What the tower's learning rate is of the head's; 0 where it is frozen."""
        return self.all.rate if self.stage == "all" else 0.0

    @property
    def peak_lr(self) -> float:
        """The head's learning rate at the end of warm-up."""
        return self.all.lr if self.stage == "all" else self.head.lr

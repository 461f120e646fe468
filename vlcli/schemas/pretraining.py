"""The schema of recipes of `pretrain`, and of those of `finetune` that train a dual encoder."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from vlcli.models.config import DualEncoderConfig, Settings
from vlcli.schemas.objectives import ObjectiveConfig
from vlcli.schemas.parts import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig

OF_CAPTIONS = ("loss", "cider_char", "cider_jieba")  # what may choose the best captioner


class PretrainConfig(TrainConfig):
    """For large batches on small memory, both exact: `chunk` pairs at a time go through the towers of a process, twice,
    and the loss is of the whole batch (GradCache; 0: all at once; batch normalisation sees chunks). `checkpointing`
    names the towers, "image" and "text", whose layers are computed a second time in place of being remembered."""

    chunk: int = Field(0, ge=0)
    checkpointing: tuple[Literal["image", "text"], ...] = ()


class Recipe(Settings):
    """One training run, as data."""

    name: str
    title: str = ""
    source: str = ""  # paper and section that the values are from
    model: DualEncoderConfig = DualEncoderConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    data: DataConfig = DataConfig()
    train: PretrainConfig = PretrainConfig()

    @model_validator(mode="after")
    def _cache_and_augmentation(self) -> Recipe:
        if self.data.augment != "none" and self.data.cache not in ("auto", "off"):
            raise ValueError(
                "data.cache: features cannot be cached when data.augment changes the image each time"
            )
        return self

    @model_validator(mode="after")
    def _tokens_where_there_are_any(self) -> Recipe:
        tokens = self.objective.tokens
        if self.model.similarity == "global" and (tokens.keep < 1 or tokens.precision != "fp32"):
            raise ValueError("objective.tokens: a model of global similarity compares no tokens")
        return self

    @model_validator(mode="after")
    def _r2d2_has_what_it_trains(self) -> Recipe:
        """Every part of a model learns from some loss, and every loss has its part."""
        objective, model = self.objective.r2d2, self.model
        if (self.train.best in OF_CAPTIONS) != (self.objective.caption is not None):
            raise ValueError(
                f"train.best: {', '.join(OF_CAPTIONS)} go with objective.caption, and with it alone"
            )
        if self.objective.caption is not None:
            if model.ranking is None:
                raise ValueError("objective.caption: a captioner starts from model.ranking")
            return self
        if objective is None:
            if model.ranking is not None or model.patch_mask:
                part = "ranking" if model.ranking is not None else "patch_mask"
                raise ValueError(f"model.{part}: only objective.r2d2 trains it")
            return self
        if self.train.chunk:
            raise ValueError(
                "train.chunk: R2D2's losses read more of the towers than their vectors, and cannot be had from"
                " chunks; train.checkpointing saves memory, too"
            )
        if model.similarity != "global":
            raise ValueError("objective.r2d2: pooled vectors are compared, model.similarity must be global")
        features = objective.feature_distillation
        wanted = (
            ("model.ranking", model.ranking is not None, "matching", objective.matching.weight > 0),
            (
                "model.ranking.mask_head",
                model.ranking is not None and model.ranking.mask_head,
                "masked_language",
                objective.masked_language.weight > 0,
            ),
            (
                "model.patch_mask",
                model.patch_mask,
                "feature_distillation.image",
                features.weight > 0 and features.image == "patches",
            ),
        )
        for part, there, loss, on in wanted:
            if there != on:
                wants = f"wants {part}" if on else f"is off, and {part} would learn nothing"
                raise ValueError(f"objective.r2d2.{loss}: {wants}")
        return self

    @property
    def chance_loss(self) -> float:
        """The loss of a model that tells no two pairs of a batch apart: ln of what each softmax is over; in R2D2 at the
        first step, before its queue has anything in it; of a captioner, to which all tokens are alike."""
        r2d2 = self.objective.r2d2
        if self.objective.caption is not None:
            return math.log(self.model.text.vocabulary)
        if r2d2 is not None:
            features = r2d2.feature_distillation
            halves = (1 + (features.image == "patches")) / 2
            return (
                math.log(self.data.batch_size)
                + r2d2.matching.weight * math.log(2)
                + r2d2.masked_language.weight * math.log(self.model.text.vocabulary)
                + features.weight * halves * math.log(self.model.dim)
            )
        one = math.log(1 + math.ceil(round(self.objective.negatives * (self.data.batch_size - 1), 9)))
        return 2 * one if self.objective.reduction == "sum" else one

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of warm-up."""
        return self.optimizer.peak(self.data.batch_size)

    def steps(self, pairs: int) -> int:
        """Steps of the run on that many pairs."""
        return self.schedule.total(self.data.steps_per_epoch(pairs))

    @property
    def caches_features(self) -> bool:
        """A wholly locked tower that sees each image unaugmented, and whole, may encode it once."""
        return self.data.augment == "none" and self.data.cache != "off" and not self.model.patch_mask

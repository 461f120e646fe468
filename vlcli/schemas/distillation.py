"""The schema of recipes of `distill`: those with a table `[distill]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlcli.models.config import Settings, TextTowerConfig
from vlcli.schemas.parts import OptimizerConfig, ScheduleConfig, TrainConfig


class StudentConfig(Settings):
    """The model that `distill` trains: `text`, a text tower with its head, whose width is the teacher's."""

    text: TextTowerConfig = TextTowerConfig()

    @model_validator(mode="after")
    def _all_of_it_learns(self) -> StudentConfig:
        if self.text.locked:
            raise ValueError("text.locked: all of a student learns")
        return self


class DistillConfig(Settings):
    """Teacher learning (AltCLIP §3.1): what the student is to say of a sentence in any of the `languages` is what the
    teacher says of the English one.

    `target`: the teacher's pooled state before its own projection ("pooled"), which then goes along with the student,
    or behind it ("projected"). `identity`: English sentences are learnt with themselves too. `sources`: the shares of
    the column `source` in each language, those that a language has none of left out; without shares, in proportion to
    what there is. `amount`: pairs of each language in an epoch; 0 for as many as there are of a language on average.
    What there is less of comes again, what there is more of comes in later epochs.
    """

    target: Literal["pooled", "projected"] = "pooled"
    languages: tuple[str, ...] = ("en", "zh", "es", "fr", "ru", "ar", "ja", "ko", "it")
    identity: bool = True
    sources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    amount: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> DistillConfig:
        if not self.learnt:
            raise ValueError("languages names none to learn")
        if len(set(self.languages)) < len(self.languages):
            raise ValueError("languages names one twice")
        return self

    @property
    def learnt(self) -> tuple[str, ...]:
        """The languages of the pairs: English is one only where it is learnt with itself."""
        return tuple(language for language in self.languages if self.identity or language != "en")


class TextDataConfig(Settings):
    """`batch_size` is global. `window`: batches of similar length are cut from that many batches' worth of pairs in
    random order, 1 for none. `cache` of tokens and of the teacher's vectors: "auto" (the user's cache directory),
    "off" (a temporary one), or a directory."""

    batch_size: int = Field(512, ge=1)
    window: int = Field(32, ge=1)
    cache: str = "auto"


class DistillTrainConfig(TrainConfig):
    """`best`: the mean squared error on the validation text, or the mean of the recalls from English and to it."""

    best: Literal["loss", "R@1"] = "loss"  # type: ignore[assignment]


class DistillRecipe(Settings):
    """Teacher learning, as data: a recipe with a table `[distill]`."""

    name: str
    title: str = ""
    source: str = ""
    model: StudentConfig = StudentConfig()
    distill: DistillConfig = DistillConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    data: TextDataConfig = TextDataConfig()
    train: DistillTrainConfig = DistillTrainConfig()

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of warm-up."""
        return self.optimizer.peak(self.data.batch_size)

    def steps(self, pairs: int) -> int:
        """Steps of the run where an epoch has that many pairs; its last incomplete batch is left out."""
        return self.schedule.total(pairs // self.data.batch_size)

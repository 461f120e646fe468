"""What recipes of several kinds have in common: optimizer, schedule, pairs, and how a run goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlcli.images.config import Augmentation
from vlcli.models.config import Settings

CROP_AREA = (0.08, 1.0)  # Inception's
TextForm = Literal["text", "field", "candidate", "candidates", "text+candidates"]


class OptimizerConfig(Settings):
    """`lr` is the peak with `lr_rule = "fixed"`, and the base of lr · sqrt(batch_size / 512) with "sqrt" (FILIP T8).

    `no_decay` names kinds of parameters: bias, norm, token_embedding, positional_embedding, temperature.
    """

    name: Literal["adamw", "lamb"] = "lamb"
    lr: float = Field(8e-4, gt=0)
    lr_rule: Literal["fixed", "sqrt"] = "sqrt"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    no_decay: tuple[
        Literal["bias", "norm", "token_embedding", "positional_embedding", "temperature"], ...
    ] = ("bias", "norm", "token_embedding", "positional_embedding", "temperature")
    clip_grad_norm: float | None = Field(None, gt=0)

    def peak(self, batch_size: int) -> float:
        """The learning rate at the end of warm-up."""
        return self.lr * (batch_size / 512) ** 0.5 if self.lr_rule == "sqrt" else self.lr


class ScheduleConfig(Settings):
    """Linear warm-up over `warmup_steps`, then "cosine" or "linear" to 0, or "constant". `steps` wins over `epochs`."""

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(3000, ge=0)
    epochs: int = Field(20, ge=1)
    steps: int | None = Field(None, ge=1)

    def total(self, steps_per_epoch: int) -> int:
        """Steps of a run."""
        return self.steps or self.epochs * steps_per_epoch


class PairsConfig(Settings):
    """`batch_size` is global. `draw`: forms of the text, one drawn uniformly each time a pair is seen: "text" (one of
    the row's texts), "field" (one of title, content and image_query, uniformly over those the row has, then one of its
    texts: ZERO's rows, R2D2 §4.1; a row without them gives one of its texts), "candidate" (a text or one candidate,
    uniformly: FILIP §3.2), "candidates" (the candidates in random order, joined), "text+candidates". `crop_area`: the
    least and the most of a picture that `augment` "resized-crop" shows.

    `last`: the pairs that are left when an epoch has no whole batch any more: "drop", or "keep" as a smaller batch.
    `epoch_pairs`: how many pairs an epoch has, where that is not all of them: more begin anew, fewer go on where the
    epoch before ended, and no pair comes again before all came.
    """

    batch_size: int = Field(512, ge=2)
    draw: tuple[TextForm, ...] = ("text",)
    joiner: str = "，"
    augment: Augmentation = "none"
    crop_area: tuple[float, float] = CROP_AREA
    workers: int = Field(4, ge=0)
    last: Literal["drop", "keep"] = "drop"
    epoch_pairs: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _something_to_draw(self) -> PairsConfig:
        if not self.draw:
            raise ValueError("draw names no form of text")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError("crop_area is not two shares of a picture, the smaller one first")
        if self.augment != "resized-crop" and self.crop_area != CROP_AREA:
            raise ValueError('crop_area belongs to augment = "resized-crop"')
        return self

    def steps_per_epoch(self, pairs: int) -> int:
        """Batches of an epoch of the data, of which there are that many pairs."""
        whole, left = divmod(self.epoch_pairs or pairs, self.batch_size)
        return whole + (self.last == "keep" and left > 0)


class DataConfig(PairsConfig):
    """Of contrastive training further: `group`, the column whose equal values are positives too, "" for none; `cache`
    of a locked tower's features: "auto" (the user's cache directory), "off", or a directory."""

    group: str = "family"
    cache: str = "auto"
    cache_gib: float = Field(20.0, gt=0)


class TrainConfig(Settings):
    """`precision`: fp32, bf16 autocast, fp16 autocast with a scaled loss (CUDA alone), or "auto": bf16 where the device
    computes in it, and fp32 where it would only imitate it, which takes many times longer. Steps between log lines,
    checkpoints and validations, and `save_minutes` between checkpoints; 0 switches one off. `keep`: how many of the
    newest checkpoints are kept; `best` and `last` always are. `ema`: the decay of a moving average of the weights,
    such as 0.9999; 0 for none. It is the average that is validated and that a checkpoint's model is; --resume goes on
    with the weights that were trained. `best`: which score of a validation chooses: a mean of recalls, one of them, a
    zero-shot accuracy on labels, the AUC of matching, or, of captions, the loss of a token or the CIDEr-D, by
    characters or by jieba's words, of what the model writes. `trackers` beside metrics.jsonl; unset: TensorBoard where
    it is installed."""

    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "bf16"
    ema: float = Field(0.0, ge=0, lt=1)
    log_every: int = Field(10, ge=1)
    save_every: int = Field(1000, ge=0)
    save_minutes: float = Field(0.0, ge=0)
    evaluate_every: int = Field(1000, ge=0)
    keep: int = Field(2, ge=1)
    best: Literal[
        "MR", "i2t.R@1", "t2i.R@1", "zeroshot.top1", "zeroshot.top5", "zeroshot.mean_per_class", "auc", "loss",
        "cider_char", "cider_jieba",
    ] = "MR"  # fmt: skip
    trackers: tuple[Literal["tensorboard", "wandb"], ...] | None = None

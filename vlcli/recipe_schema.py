"""The schema of recipes: every key there is, its values and what the papers give."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlcli.images.config import Augmentation
from vlcli.models.config import DualEncoderConfig, Settings, TextTowerConfig

CROP_AREA = (0.08, 1.0)  # Inception's
TextForm = Literal["text", "field", "candidate", "candidates", "text+candidates"]


class TokensConfig(Settings):
    """What happens to tokens in training before processes exchange and compare them (FILIP §3.1.1); evaluation uses
    all of them as they are.

    `keep`: the share of each image's patches and each text's non-padded tokens that stays: 1, or 0.5 and 0.25 as in
    FILIP Table 5; rounded up, a content token always among them (spec D16). Those stay that score highest, a token's
    score being its largest dot product with any token of the other side: of the own process's share of the batch with
    `scope` "local" (the paper), which depends on the number of processes, or of the whole batch with "global", which
    does not, but sends all tokens once for it. `precision` "fp16": tokens are sent and multiplied in fp16, sums are
    in float32 (on a CPU the products too).
    """

    keep: float = Field(1.0, gt=0, le=1)
    scope: Literal["local", "global"] = "global"
    precision: Literal["fp32", "fp16"] = "fp32"


class TargetDistillationConfig(Settings):
    """Target-guided distillation of the pre-ranking (R2D2 Eq 4–5): softmaxes over the batch and a `queue` of the newest
    features of the momentum encoders, an entry of which weighs `decay` less at each step; targets are `alpha` parts of
    what the momentum encoders say and the rest the labels. `columns` of the current batch are the "student"'s, with
    gradient (spec D18), or "momentum" features as the queue's. `enabled = false`: a plain InfoNCE over the batch.
    """

    enabled: bool = True
    alpha: float = Field(0.4, ge=0, le=1)
    queue: int = Field(36_864, ge=0)
    decay: float = Field(0.99, gt=0, le=1)
    columns: Literal["student", "momentum"] = "student"


class MatchingConfig(Settings):
    """Fine-grained ranking (R2D2 §3.2): each pair against one hard negative of either side. `negatives`: the one of the
    highest score ("argmax", spec D20), or one drawn in proportion to the softmax ("multinomial"); of the process's own
    share of the batch with `scope` "local", or of the whole batch with "global", which sends all hidden states.
    `positive_weight` of a pair that matches; one that does not weighs 1, and there are twice as many. `weight` of the
    loss; 0 switches it off."""

    weight: float = Field(1.0, ge=0)
    negatives: Literal["argmax", "multinomial"] = "argmax"
    scope: Literal["local", "global"] = "local"
    positive_weight: float = Field(1.0, gt=0)


class MaskedLanguageConfig(Settings):
    """Masked words (R2D2 §3.2): a `share` of each text's words is [MASK], all of them, and guessed with the image in
    sight. `enhanced` training: the ranking reads the masked text, and one pass serves both; else the ranking reads
    the whole text, and masked words have a pass of their own. `masked_negatives`: under enhanced training negatives
    are masked too, or the mask would tell which pairs match (spec D21)."""

    weight: float = Field(1.0, ge=0)
    share: float = Field(0.15, gt=0, lt=1)
    enhanced: bool = True
    masked_negatives: bool = True


class FeatureDistillationConfig(Settings):
    """Feature-guided distillation (R2D2 Eq 6–7): the features of the masked text, and of the masked picture, guess the
    momentum encoders' of the whole, less their running mean. `share` of words and of patches that is masked; `image`
    "off" leaves the picture out, "patches" wants pixels at every step (nothing is cached) and model.patch_mask."""

    weight: float = Field(1.0, ge=0)
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.04, gt=0)
    centre_momentum: float = Field(0.995, ge=0, lt=1)
    share: float = Field(0.15, gt=0, lt=1)
    image: Literal["patches", "off"] = "patches"


class R2D2ObjectiveConfig(Settings):
    """L = L_GCPR^TgD + L_FGR + L_FgD + L_MLM (R2D2 Eq 8). `momentum` of the copies of the encoders that teach."""

    momentum: float = Field(0.995, ge=0, lt=1)
    target_distillation: TargetDistillationConfig = TargetDistillationConfig()
    matching: MatchingConfig = MatchingConfig()
    masked_language: MaskedLanguageConfig = MaskedLanguageConfig()
    feature_distillation: FeatureDistillationConfig = FeatureDistillationConfig()

    @model_validator(mode="after")
    def _words_are_masked_once(self) -> R2D2ObjectiveConfig:
        words, features = self.masked_language, self.feature_distillation
        if words.weight and features.weight and words.share != features.share:
            raise ValueError("masked_language.share and feature_distillation.share: one text is masked once")
        return self

    @property
    def teaches(self) -> bool:
        """Whether anything asks momentum encoders."""
        return self.target_distillation.enabled or self.feature_distillation.weight > 0


class CaptionObjectiveConfig(Settings):
    """Captions, token by token (R2D2 App. C). `label_smoothing`: the share of each target that is spread over the
    vocabulary."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)


class ObjectiveConfig(Settings):
    """InfoNCE. `reduction` of the two directions: "mean" (Wukong, FILIP) or "sum" (ALIGN). `label_smoothing`: the share
    of each target that is spread evenly over the batch (ALIGN §5: 0.1). `negatives`: the share of a pair's negatives
    in the global batch that its softmax is over (ALIGN Table 8: 1, 0.5, 0.25), drawn anew by (seed, step); positives
    always are. `tokens`: selection and precision of token-wise similarity. `r2d2`: R2D2's objective in its place;
    `caption`: that of a captioner.
    """

    reduction: Literal["mean", "sum"] = "mean"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    negatives: float = Field(1.0, gt=0, le=1)
    tokens: TokensConfig = TokensConfig()
    r2d2: R2D2ObjectiveConfig | None = None
    caption: CaptionObjectiveConfig | None = None

    @model_validator(mode="after")
    def _one_objective(self) -> ObjectiveConfig:
        if self.r2d2 is not None and self.caption is not None:
            raise ValueError("r2d2 and caption are two objectives")
        if self.r2d2 is not None and (self.label_smoothing or self.negatives < 1 or self.reduction != "mean"):
            raise ValueError(
                "r2d2 has neither label_smoothing nor a share of negatives nor a sum of directions"
            )
        return self


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
    zero-shot accuracy on labels, the AUC of matching, or, of captions, the loss of a token. `trackers` beside
    metrics.jsonl; unset: TensorBoard where it is installed."""

    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "bf16"
    ema: float = Field(0.0, ge=0, lt=1)
    log_every: int = Field(10, ge=1)
    save_every: int = Field(1000, ge=0)
    save_minutes: float = Field(0.0, ge=0)
    evaluate_every: int = Field(1000, ge=0)
    keep: int = Field(2, ge=1)
    best: Literal[
        "MR", "i2t.R@1", "t2i.R@1", "zeroshot.top1", "zeroshot.top5", "zeroshot.mean_per_class", "auc", "loss"
    ] = "MR"
    trackers: tuple[Literal["tensorboard", "wandb"], ...] | None = None


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
        if (self.train.best == "loss") != (self.objective.caption is not None):
            raise ValueError('train.best = "loss" goes with objective.caption, and with it alone')
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

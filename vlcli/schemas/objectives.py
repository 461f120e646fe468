"""What is learnt, as recipes say it: tokens, R2D2's parts, captions, and the whole objective."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlcli.models.config import Settings


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

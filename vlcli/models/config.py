"""What a dual encoder is, as data: the `[model]` table of a recipe and the `architecture` of a checkpoint."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vlcli.images.config import PreprocessConfig
from vlcli.models.encoders import resolved


class Settings(BaseModel):
    """Settings are frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageTowerConfig(Settings):
    """Any timm architecture, by `name` and further `arguments` of timm's constructor. `locked`: no gradient, never in
    training mode, features may be cached (LiT); with `unlocked_from = N` only what comes before layer N (from 0, as
    the tower orders them) is locked.

    `init` names initial weights: "random", "package:NAME" (weights that an installed package ships) or a description
    of a public checkpoint that `--init image=PATH` must supply.
    `pooling`: "cls", "mean" of the patches, or "auto": [CLS] where the tower has one. Where timm's tower has a norm
    for its pooled vector, it is applied.
    `eps` of every LayerNorm, where weights were trained with another than timm's. `final_norm = false` leaves the last
    norm away (R2D2 reads CLIP's tower before it). `head_conv = false` leaves away EfficientNet's 1×1 convolution
    before pooling (ALIGN §4.1: B7 then gives 640 channels, L2 1376).
    """

    name: str = "vit_base_patch32_clip_quickgelu_224"
    arguments: dict[str, Any] = {}
    locked: bool = True
    unlocked_from: int | None = Field(None, ge=0)
    init: str = "random"
    init_page: str = ""
    preprocess: PreprocessConfig = PreprocessConfig()
    pooling: Literal["auto", "cls", "mean"] = "auto"
    eps: float | None = Field(None, gt=0)
    final_norm: bool = True
    head_conv: bool = True

    @model_validator(mode="after")
    def _locked_below(self) -> ImageTowerConfig:
        return _refuse_unlocked(self, "image")


class TextHeadConfig(Settings):
    """A fully connected layer on every hidden state, behind a LayerNorm if `norm` (AltCLIP §3.1: to CLIP's width)."""

    width: int = Field(ge=1)
    norm: bool = True
    eps: float = Field(1e-5, gt=0)


class TextTowerConfig(Settings):
    """A causal transformer of ours, or any encoder that transformers has.

    `kind = "causal"`: pre-LN, learned positions (Wukong T3, FILIP T7, CLIP), of `width`, `layers`, `heads`,
    `vocabulary`, `activation`, `eps` of its LayerNorms.
    `kind = "transformers"`: `name` is one of the sizes in encoders.py ("bert-mini" … "bert-large", "roberta-wwm-ext",
    "xlm-roberta-large", …) or a local directory with a config.json; `encoder` is transformers' own configuration, which
    `name` fills and whose values win. `vocabulary` and `dropout` change it; `width`, `layers`, `heads` and `padding_id`
    follow from it.
    `pooling` of a global similarity: "last" is the last token (Wukong's [SEP]), "eot" the first end-of-text (CLIP),
    "cls" the first token (ALIGN, R2D2, AltCLIP). `head` is a fully connected layer before the projection.
    `tokenizer`: "wordpiece-zh", "clip-bpe", a directory or file as `vlcli tokenize` reads, or "init": what lies beside
    the tower's initial weights. A checkpoint carries its own copy. `padding_id` is what it pads with.
    `locked`, `unlocked_from`, `init`, `init_page` as of the image tower; the option is `--init text=PATH`.
    """

    kind: Literal["causal", "transformers"] = "causal"
    name: str = ""
    encoder: dict[str, Any] = {}
    width: int = Field(512, ge=8)
    layers: int = Field(12, ge=1)
    heads: int = Field(8, ge=1)
    context: int = Field(32, ge=3)
    vocabulary: int = Field(21128, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    eps: float = Field(1e-5, gt=0)
    pooling: Literal["last", "eot", "cls"] = "last"
    head: TextHeadConfig | None = None
    tokenizer: str = "wordpiece-zh"
    padding_id: int = Field(0, ge=0)
    locked: bool = False
    unlocked_from: int | None = Field(None, ge=0)
    init: str = "random"
    init_page: str = ""

    @model_validator(mode="before")
    @classmethod
    def _what_the_encoder_says(cls, value: Any) -> Any:
        return resolved(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_together(self) -> TextTowerConfig:
        if self.kind == "causal" and self.width % self.heads:
            raise ValueError(f"text.width {self.width} is not a multiple of text.heads {self.heads}")
        if self.kind == "causal" and self.pooling == "cls":
            raise ValueError('text.pooling = "cls": the first token of a causal transformer sees no other')
        return _refuse_unlocked(self, "text")

    @property
    def output_width(self) -> int:
        """What the projection reads."""
        return self.width if self.head is None else self.head.width


Tower = TypeVar("Tower", ImageTowerConfig, TextTowerConfig)


def _refuse_unlocked(tower: Tower, side: str) -> Tower:
    if tower.unlocked_from is not None and not tower.locked:
        raise ValueError(f"{side}.unlocked_from: a layer to unlock from wants {side}.locked = true")
    return tower


class TrainRule(Settings):
    """Parameters whose whole name matches the regular expression `pattern` learn at `rate` times the schedule's rate,
    or, "locked", not at all."""

    pattern: str
    rate: Annotated[float, Field(gt=0)] | Literal["locked"]

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern


class ProjectionConfig(Settings):
    """Into the joint space, token by token: "linear" as in the papers (with `bias`: ALIGN, R2D2), "none" where a
    tower's width is the joint one (ALIGN's image side), or "mlp" (norm, hidden layer, GELU).

    `init = "tower"`: it starts from what stands beside the tower's initial weights (AltCLIP, whose CLIP keeps its
    projections; an mlp from a checkpoint of ours), not at random (Wukong trains a new one).
    """

    kind: Literal["linear", "none", "mlp"] = "linear"
    bias: bool = False
    init: Literal["random", "tower"] = "random"
    hidden: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _only_linear_has_bias(self) -> ProjectionConfig:
        if self.bias and self.kind != "linear":
            raise ValueError(f'bias belongs to kind = "linear", not to "{self.kind}"')
        if self.init == "tower" and self.kind == "none":
            raise ValueError('init = "tower" is for a projection, kind is "none"')
        return self


class ReductionConfig(Settings):
    """Token reduction of `similarity = "reduced"` to `tokens` tokens an image (Wukong Eq 6, spec D13).

    `kind` "released": softmax maps over projected tokens, as in the released models. "paper": the convolutions of Eq 6
    before the projection, with their `kernel` (3 or 1) and `gate` on the maps. `reduction = "paper"` alone is short
    for a table with that kind.
    """

    kind: Literal["released", "paper"] = "released"
    tokens: int = Field(12, ge=1)
    kernel: Literal[1, 3] = 3
    gate: Literal["sigmoid", "none"] = "sigmoid"

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_the_papers_has_kernels(self) -> ReductionConfig:
        if self.kind == "released" and (self.kernel, self.gate) != (3, "sigmoid"):
            raise ValueError('kernel and gate belong to kind = "paper": the released layer has neither')
        return self


class TemperatureConfig(Settings):
    """τ of the softmax, shared by both directions: stored as log(1/τ), 1/τ at most `max_scale`. Without `learnable`
    it stays at `init`."""

    init: float = Field(0.07, gt=0)
    learnable: bool = True
    max_scale: float = Field(100.0, gt=0)

    @model_validator(mode="after")
    def _starts_within_its_bound(self) -> TemperatureConfig:
        if 1 / self.init > self.max_scale * (1 + 1e-9):
            raise ValueError(
                f"init {self.init:g} means a scale of {1 / self.init:g}, above max_scale {self.max_scale:g}"
            )
        return self


class CrossConfig(Settings):
    """A cross encoder of `layers` post-LN layers, each self-attention, attention to the other side, and an MLP of
    `intermediate`, all as wide as the text tower, with `heads` each. `initializer_range`: the standard deviation that
    its weights and those of the heads on it start with; BERT's is for a width of 768."""

    layers: int = Field(6, ge=1)
    heads: int = Field(12, ge=1)
    intermediate: int = Field(3072, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    eps: float = Field(1e-12, gt=0)
    initializer_range: float = Field(0.02, gt=0)


class RankingConfig(CrossConfig):
    """The ranking part of R2D2 (§3.1): two cross encoders. `shared_head`: one matching head for both instead of one
    each (spec D19). `mask_head`: a head for masked words on the text-image one."""

    shared_head: bool = False
    mask_head: bool = True


class DualEncoderConfig(Settings):
    """Two towers, a joint space of `dim`, and a similarity.

    `similarity`: "global" compares pooled vectors, "tokenwise" every token (FILIP Eq 3–5), "reduced" every text token
    with the few tokens of `reduction` (Wukong §4.4). `t2i_special_tokens` includes [CLS] and [SEP] in the text→image
    average (FILIP) or excludes them (Wukong §4.3). `i2t_padding`: padding is excluded from the image→text maximum, or
    is the vector of zeros that it is in Wukong's released evaluation, where a text shorter than the context gives each
    image token at least 0; for evaluation alone: in training a maximum that nobody wins would pass no gradient.
    `ranking` stands behind the towers of R2D2, whose pooled vectors find the candidates that it ranks.
    `patch_mask`: a learned vector that may stand in place of a patch's embedding (R2D2 §3.2; training alone).
    `train` is an ordered list of patterns and rates; of those that match a parameter's name the first counts. After
    them stand the towers' `locked` and `unlocked_from`, and, only where there is no list, "everything else learns".
    A pattern that no parameter falls to, and a parameter that nothing covers, are errors (locking.py).
    """

    dim: int = Field(256, ge=1)
    similarity: Literal["global", "tokenwise", "reduced"] = "tokenwise"
    reduction: ReductionConfig = ReductionConfig()
    t2i_special_tokens: Literal["include", "exclude"] = "exclude"
    i2t_padding: Literal["exclude", "zero"] = "exclude"
    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig = TextTowerConfig()
    image_projection: ProjectionConfig = ProjectionConfig()
    text_projection: ProjectionConfig = ProjectionConfig()
    temperature: TemperatureConfig = TemperatureConfig()
    ranking: RankingConfig | None = None
    patch_mask: bool = False
    train: tuple[TrainRule, ...] = ()

    @property
    def kind(self) -> Literal["dual", "r2d2"]:
        """What a checkpoint of this architecture is called."""
        return "dual" if self.ranking is None else "r2d2"

    @model_validator(mode="after")
    def _padding_of_tokens(self) -> DualEncoderConfig:
        if self.similarity == "global" and self.i2t_padding == "zero":
            raise ValueError('i2t_padding = "zero" is for models that compare tokens: similarity is global')
        return self

    @model_validator(mode="after")
    def _ranking_reads_a_bidirectional_text(self) -> DualEncoderConfig:
        if self.ranking is None:
            return self
        if self.similarity != "global":
            raise ValueError("ranking: candidates are found by pooled vectors, similarity must be global")
        if self.text.kind != "transformers" or self.text.pooling != "cls":
            raise ValueError(
                'ranking: the text tower is one of transformers, read at its first token ("cls")'
            )
        if self.text.width % self.ranking.heads:
            raise ValueError(
                f"text.width {self.text.width} is not a multiple of ranking.heads {self.ranking.heads}"
            )
        return self

    @model_validator(mode="after")
    def _groups_divide_dim(self) -> DualEncoderConfig:
        if self.similarity == "reduced" and self.reduction.kind == "released" and self.dim % 8:
            raise ValueError(
                f"dim {self.dim} is not a multiple of the 8 groups of the released token reduction"
            )
        return self


class TextEncoderConfig(Settings):
    """A text tower alone, as teacher learning makes it. `dim`: of the joint space that the teacher's own projection
    leads to, which goes along (`projection_bias`: it has one); None where none goes along."""

    text: TextTowerConfig = TextTowerConfig()
    dim: int | None = Field(None, ge=1)
    projection_bias: bool = False


class ClassifierConfig(Settings):
    """An image tower and a linear head on its pooled output: a logit for each of `labels`, in their order.
    `evaluation`: how pictures become pixels where it does not learn, unset where that is as in training
    (`image.preprocess`, whose size the tensors are of)."""

    image: ImageTowerConfig = ImageTowerConfig()
    evaluation: PreprocessConfig | None = None
    labels: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _labels_differ(self) -> ClassifierConfig:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels has one twice")
        return self


class CaptionerConfig(Settings):
    """An image tower, and what writes about it: a text encoder of transformers and behind it a cross encoder that looks
    at the picture, both from left to right. `train` as of a dual encoder."""

    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig
    cross: CrossConfig = CrossConfig()
    train: tuple[TrainRule, ...] = ()

    @model_validator(mode="after")
    def _writes(self) -> CaptionerConfig:
        if self.text.kind != "transformers":
            raise ValueError("text: the encoder of a captioner is one of transformers, as an R2D2's is")
        if self.text.width % self.cross.heads:
            raise ValueError(
                f"text.width {self.text.width} is not a multiple of cross.heads {self.cross.heads}"
            )
        return self

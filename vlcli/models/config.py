"""What a dual encoder is, as data: the `[model]` table of a recipe and the `architecture` of a checkpoint."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlcli.images.config import PreprocessConfig


class Settings(BaseModel):
    """Settings are frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageTowerConfig(Settings):
    """Any timm architecture. `locked`: no gradient, never in training mode, features may be cached (LiT).

    `init` names initial weights: "random", "package:NAME" (weights that an installed package ships) or a description
    of a public checkpoint that `--init image=PATH` must supply.
    """

    name: str = "vit_base_patch32_clip_quickgelu_224"
    locked: bool = True
    init: str = "random"
    init_page: str = ""
    preprocess: PreprocessConfig = PreprocessConfig()


class TextTowerConfig(Settings):
    """Wukong's causal transformer: pre-LN, QuickGELU, learned positions (Wukong T3, FILIP T7)."""

    width: int = Field(512, ge=8)
    layers: int = Field(12, ge=1)
    heads: int = Field(8, ge=1)
    context: int = Field(32, ge=3)
    vocabulary: int = 21128
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TextTowerConfig:
        if self.width % self.heads:
            raise ValueError(f"text.width {self.width} is not a multiple of text.heads {self.heads}")
        return self


class ProjectionConfig(Settings):
    """Into the joint space, token by token: "linear" as in the papers, or "mlp" (norm, hidden layer, GELU)."""

    kind: Literal["linear", "mlp"] = "linear"
    hidden: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


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


class DualEncoderConfig(Settings):
    """Two towers, a joint space of `dim`, and a similarity.

    `similarity`: "global" compares pooled vectors, "tokenwise" every token (FILIP Eq 3–5), "reduced" every text token
    with the few tokens of `reduction` (Wukong §4.4). `t2i_special_tokens` includes [CLS] and [SEP] in the text→image
    average (FILIP) or excludes them (Wukong §4.3). `i2t_padding`: padding is excluded from the image→text maximum, or
    is the vector of zeros that it is in Wukong's released evaluation, where a text shorter than the context gives each
    image token at least 0; for evaluation alone: in training a maximum that nobody wins would pass no gradient.
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

    @model_validator(mode="after")
    def _padding_of_tokens(self) -> DualEncoderConfig:
        if self.similarity == "global" and self.i2t_padding == "zero":
            raise ValueError('i2t_padding = "zero" is for models that compare tokens: similarity is global')
        return self

    @model_validator(mode="after")
    def _groups_divide_dim(self) -> DualEncoderConfig:
        if self.similarity == "reduced" and self.reduction.kind == "released" and self.dim % 8:
            raise ValueError(
                f"dim {self.dim} is not a multiple of the 8 groups of the released token reduction"
            )
        return self

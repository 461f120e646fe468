"""Settings of preprocessing, as data: nothing here imports torch, so recipes are read in a moment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Augmentation = Literal["none", "autoaugment", "crop-flip", "resized-crop"]


class PreprocessConfig(BaseModel):
    """How pixels become (3, size, size) floats; stored in every checkpoint.

    `fit`: "crop" resizes the shorter side to `resize` (where None: to `size`) and takes the centre (CLIP, Wukong);
    "squash" resizes both sides. `mean` and `std` are in units of [0, 1].

    What tells the same weights' preprocessings apart in the last digits: `rgb`, whether a picture becomes RGB "before"
    it is resized (Wukong, R2D2), so with what is transparent laid on "white" (transformers), or "after" (OpenAI,
    open_clip, cn_clip), which shows in palettes and transparency; `engine`, whether Pillow resizes or torch does
    (transformers since 5.0); `centre`, whether half a pixel of a margin is rounded to the "nearest" (torchvision) or
    "down" (transformers).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(224, ge=8)
    resize: int | None = Field(None, ge=8)
    fit: Literal["crop", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    rgb: Literal["before", "white", "after"] = "before"
    engine: Literal["pillow", "torch"] = "pillow"
    centre: Literal["nearest", "down"] = "nearest"

    @model_validator(mode="after")
    def _a_crop_lies_inside(self) -> PreprocessConfig:
        if self.resize is not None and (self.fit == "squash" or self.resize < self.size):
            raise ValueError(
                f'resize = {self.resize} belongs to fit = "crop", and is at least size = {self.size}'
            )
        return self

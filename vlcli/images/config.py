"""Settings of preprocessing, as data: nothing here imports torch, so recipes are read in a moment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Augmentation = Literal["none", "autoaugment", "crop-flip"]


class PreprocessConfig(BaseModel):
    """How pixels become (3, size, size) floats; stored in every checkpoint.

    `fit`: "crop" resizes the shorter side to `size` and takes the centre (CLIP, Wukong); "squash" resizes both sides.
    `mean` and `std` are in units of [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(224, ge=8)
    fit: Literal["crop", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

"""What a prior and a decoder are, as data (R2D2 App. C after DALL-E 2): the `[model]` table of a recipe, and with what
follows from the dual encoder the `architecture` of a checkpoint.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlcli.models.config import Settings


class NoiseConfig(Settings):
    """The noise process: `levels` of it, from nearly none to nearly nothing else, by the `schedule` "cosine" (Nichol &
    Dhariwal 2021, diffusers' squaredcos_cap_v2) or "linear" (Ho et al. 2020). `predicts`: what a model says of a noisy
    one: the "sample" without noise, the noise itself ("epsilon"), or their "velocity" (Salimans & Ho 2022)."""

    levels: int = Field(1000, ge=2)
    schedule: Literal["cosine", "linear"] = "cosine"
    predicts: Literal["sample", "epsilon", "velocity"] = "epsilon"


class PriorShape(Settings):
    """A transformer of `layers` with `heads` of `head_width` each: diffusers' PriorTransformer. Its dropout draws from
    torch's generator: two processes drop other things than one."""

    layers: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    head_width: int = Field(64, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: NoiseConfig = NoiseConfig(predicts="sample")


class Encoded(Settings):
    """What a part has of the dual encoder whose space it works in: `encoder` is that one's checkpoint hash, `dim` the
    width of its image embeddings."""

    encoder: str = Field(pattern=r"^[0-9a-f]{16}$")
    dim: int = Field(ge=1)


class PriorConfig(PriorShape, Encoded):
    """The prior of one dual encoder: hidden states of `context` tokens are `text_width` wide."""

    text_width: int = Field(ge=1)
    context: int = Field(ge=3)


class DecoderShape(Settings):
    """A UNet on the pixels of pictures of `size`: feature maps of `size`, `size`/2, … with `channels` each, `blocks`
    residual blocks on each way, attention to the picture's embedding on maps of the sides in `attention` and in the
    middle, normalisation in `groups`. diffusers' UNet2DConditionModel, as Kandinsky 2.2 conditions it."""

    size: int = Field(64, ge=8)
    channels: tuple[Annotated[int, Field(ge=1)], ...] = (128, 256, 384, 512)
    attention: tuple[int, ...] = (32, 16, 8)
    blocks: int = Field(2, ge=1)
    head_width: int = Field(64, ge=1)
    groups: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: NoiseConfig = NoiseConfig()

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the feature maps."""
        return tuple(self.size >> level for level in range(len(self.channels)))

    @model_validator(mode="after")
    def _maps_fit(self) -> DecoderShape:
        if len(self.channels) < 2:
            raise ValueError("channels: a UNet has two feature maps or more")
        if self.size % (1 << (len(self.channels) - 1)):
            raise ValueError(f"size {self.size} cannot be halved {len(self.channels) - 1} times")
        if strange := [side for side in self.attention if side not in self.sides]:
            sides = ", ".join(map(str, self.sides))
            raise ValueError(f"attention: no feature map has the side {strange[0]}; there are {sides}")
        if odd := [width for width in self.channels if width % self.groups or width % self.head_width]:
            raise ValueError(
                f"channels: {odd[0]} is no multiple of groups = {self.groups} and head_width = {self.head_width}"
            )
        return self


class DecoderConfig(DecoderShape, Encoded):
    """The decoder of one dual encoder's image embeddings."""

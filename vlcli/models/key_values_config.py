"""Settings of diffusion models that our text encoders guide, as data: nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from vlcli.models.config import Settings

# What stands for a text's tokens before a UNet's cross-attention. AltCLIP §5.4 does not say: transformers' AltCLIP puts
# its LayerNorm before its fully connected layer, as teacher learning does; FlagAI's diffusion leaves the norm away.
States = Literal["head", "head-without-norm", "projected"]
Prediction = Literal["epsilon", "v_prediction"]


class KeyValuesConfig(Settings):
    """Key and value projections of a UNet's cross-attention, and what they are of.

    `unet`, `vae` and `encoder` are fingerprints, `prediction` is what the UNet says of a noisy picture, `states` what
    it reads of a text: `length` of them, `width` wide. `tensors`: the shape of each, by diffusers' name.
    """

    unet: str
    vae: str
    encoder: str
    states: States
    width: int
    length: int
    prediction: Prediction
    tensors: dict[str, tuple[int, ...]]

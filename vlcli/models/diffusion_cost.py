"""What a prior or a decoder costs, told from its shapes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from vlcli.models.config import DualEncoderConfig
from vlcli.models.decoder import Decoder
from vlcli.models.diffusion_config import DecoderConfig, DecoderShape, PriorConfig, PriorShape
from vlcli.models.dual import trainable_report
from vlcli.models.prior import Prior


@dataclass(frozen=True)
class DiffusionCost:
    """`state`: bytes of weights, gradients, and two moments of an optimizer, in float32."""

    parts: dict[str, dict[str, int]]
    parameters: int
    trainable: int
    state: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diffusion_on_meta(shape: PriorShape | DecoderShape, encoder: DualEncoderConfig) -> Prior | Decoder:
    """The model of that shape for a dual encoder, without memory. Raises MissingDiffusers."""
    of: dict[str, Any] = {"encoder": "0" * 16, "dim": encoder.dim}
    with torch.device("meta"):
        if isinstance(shape, DecoderShape):
            return Decoder(DecoderConfig(**shape.model_dump(), **of))
        of |= {"text_width": encoder.text.width, "context": encoder.text.context}
        return Prior(PriorConfig(**shape.model_dump(), **of))


def diffusion_cost(model: Prior | Decoder) -> DiffusionCost:
    parts = trainable_report(model)
    parameters, trainable = (sum(part[key] for part in parts.values()) for key in ("parameters", "trainable"))
    return DiffusionCost(parts, parameters, trainable, 4 * (parameters + 3 * trainable))

"""What a dual encoder costs, told from its shapes: parameters, floating point operations and memory of one pair.

The model stands on the meta device and nothing is computed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlcli.models.config import DualEncoderConfig, TextEncoderConfig
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.models.flops import FlopCounter
from vlcli.models.text_encoder import TextEncoder

_PAIRS = 2  # of the trial batch: batch norms refuse a single one


@dataclass(frozen=True)
class Cost:
    """FLOPs are of one pair; bytes of `state` of the whole model, of `activations` of one pair.

    `image_flops` and `text_flops`: forward, projections included. `training_flops`: forward and backward of what
    learns. `similarity_flops`: a pair's row of similarities with a batch of `batch`, forward. `state`: weights,
    gradients, and two moments of an optimizer, in float32. `activations`: what is kept for the backward pass.
    `step`: of R2D2, the forward operations of a training pair by part (training/r2d2_cost.py).
    """

    parts: dict[str, dict[str, int]]
    parameters: int
    trainable: int
    tokens: int  # patches of an image
    compared: int  # vectors of an image that are compared: 1 of a global model
    context: int
    image_flops: int
    text_flops: int
    training_flops: int
    batch: int
    similarity_flops: int
    state: int
    activations: int
    step: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TextCost:
    """The same of a text tower alone; FLOPs and `activations` are of one text as long as the context."""

    parts: dict[str, dict[str, int]]
    parameters: int
    trainable: int
    context: int
    text_flops: int
    training_flops: int
    state: int
    activations: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def on_meta(config: DualEncoderConfig) -> DualEncoder:
    """The model without memory. Raises UsageError for an architecture that cannot be built."""
    with torch.device("meta"):
        return DualEncoder(config)


def text_on_meta(config: TextEncoderConfig) -> TextEncoder:
    """The same of a text tower alone."""
    with torch.device("meta"):
        return TextEncoder(config)


def text_cost(model: TextEncoder, *, precision: str = "fp32") -> TextCost:
    """The cost of a text tower on the meta device, for texts as long as its context."""
    context = model.config.text.context
    model.train()
    kept = _Kept(model)
    with FlopCounter() as count, kept:
        hidden = model.text(torch.zeros(_PAIRS, context, dtype=torch.long, device="meta"))[:, 0]
        if model.text_head is not None:
            model.text_head(hidden)
    parts = trainable_report(model)
    parameters = sum(part["parameters"] for part in parts.values())
    trainable = sum(part["trainable"] for part in parts.values())
    return TextCost(
        parts=parts,
        parameters=parameters,
        trainable=trainable,
        context=context,
        text_flops=count.forward // _PAIRS,
        training_flops=(count.forward + count.backward) // _PAIRS,
        state=_state_bytes(parameters, trainable),
        activations=kept.bytes // _PAIRS // (2 if precision == "bf16" else 1),
    )


def _state_bytes(parameters: int, trainable: int) -> int:
    """Weights, gradients and two moments in float32."""
    return 4 * (parameters + 3 * trainable)


def cost(model: DualEncoder, *, batch: int, precision: str = "fp32") -> Cost:
    """The cost of a model on the meta device, for texts as long as its context."""
    config = model.config
    model.train()
    pixels = torch.zeros(_PAIRS, 3, model.image_size, model.image_size, device="meta")
    ids = torch.zeros(_PAIRS, config.text.context, dtype=torch.long, device="meta")
    kept = _Kept(model)
    with FlopCounter() as count, kept:
        image = model.project_image(model.image_features(pixels, pooled_only=not model.reads_tokens))
        image_flops = count.forward
        _text(model, ids)
    vectors = 1 if image.tokens is None else image.tokens.shape[1]
    words = 1 if image.tokens is None else config.text.context
    parts = trainable_report(model)
    parameters = sum(part["parameters"] for part in parts.values())
    trainable = sum(part["trainable"] for part in parts.values())
    return Cost(
        parts=parts,
        parameters=parameters,
        trainable=trainable,
        tokens=model.grid[0] * model.grid[1],
        compared=vectors,
        context=config.text.context,
        image_flops=image_flops // _PAIRS,
        text_flops=(count.forward - image_flops) // _PAIRS,
        training_flops=(count.forward + count.backward) // _PAIRS,
        batch=batch,
        similarity_flops=2 * vectors * words * config.dim * batch,
        state=_state_bytes(parameters, trainable),
        activations=kept.bytes // _PAIRS // (2 if precision == "bf16" else 1),
    )


def _text(model: DualEncoder, ids: Tensor) -> Tensor:
    hidden = model.text(ids)
    return model.project_text(hidden[:, 0] if model.config.similarity == "global" else hidden)


class _Kept:
    """Counts the bytes that autograd keeps, each storage once and parameters not at all."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

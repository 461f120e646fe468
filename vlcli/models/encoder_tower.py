"""A text tower that transformers has: BERT, RoBERTa, XLM-R, … (ALIGN §4.1, R2D2 §3.1, AltCLIP §3.1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vlcli.errors import UsageError
from vlcli.models.config import TextTowerConfig


class TransformersTower(nn.Module):
    """`tower(ids (B, n), mask (B, n))` → hidden states of the last layer (B, n, width); no mask: no padding.

    `body` is transformers' model without a pooler, under its own parameter names. Its dropout draws from torch's
    generator: `keys` are for towers of ours.
    """

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.width, self.context, self.padding_id = config.width, config.context, config.padding_id
        self.body: Any = _build(config.encoder)

    def forward(self, ids: Tensor, mask: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        assert ids.shape[1] <= self.context, f"{ids.shape[1]} tokens, context {self.context}"
        if not len(ids):  # a process without a share: transformers' layers want a row, parameters a gradient
            return self.body(input_ids=ids.new_full((1, max(1, ids.shape[1])), self.padding_id))[0][:0]
        if mask is None:
            return self.body(input_ids=ids).last_hidden_state
        # RoBERTa counts positions over ids that are not its padding id: whatever the caller padded with must be it
        ids = ids.masked_fill(~mask, self.padding_id)
        seen = mask.clone()
        seen[:, 0] |= ~mask.any(1)  # attention over nothing is no number
        return self.body(input_ids=ids, attention_mask=seen).last_hidden_state


def _build(encoder: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    values = {key: value for key, value in encoder.items() if key != "model_type"}
    try:
        config = AutoConfig.for_model(encoder["model_type"], **values)
    except (ValueError, KeyError) as error:
        raise UsageError(f"text.encoder: {' '.join(str(error).split())[:200]}") from error
    try:
        return AutoModel.from_config(config, add_pooling_layer=False)
    except TypeError:  # an architecture that never had a pooler
        return AutoModel.from_config(config)

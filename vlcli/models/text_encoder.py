"""A text tower alone: the student of AltCLIP's teacher learning (§3.1), a checkpoint of kind "text"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlcli.models.config import TextEncoderConfig
from vlcli.models.dropout import number_places
from vlcli.models.text_passes import pooled_states
from vlcli.models.text_tower import TextHead, text_tower
from vlcli.text.model_tokenizers import ModelTokenizer, open_tokenizer, refuse_foreign


class TextEncoder(nn.Module):
    """`encoder(ids, mask)` → the state (B, c) that stands for each text, which is what a teacher's is compared with.

    Its parts have the names that a dual encoder's have. `text_projection`, where there is one, is the teacher's: it
    goes along and does not learn, so that the contrastive stage can begin with it.
    """

    kind = "text"

    def __init__(self, config: TextEncoderConfig, tokenizer: ModelTokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.text = text_tower(config.text)
        self.text_head = None if config.text.head is None else TextHead(config.text.width, config.text.head)
        self.text_projection = None
        if config.dim is not None:
            layer = nn.Linear(config.text.output_width, config.dim, bias=config.projection_bias)
            self.text_projection = layer.requires_grad_(False)
        on_meta = next(self.parameters()).is_meta
        if tokenizer is None and not on_meta:  # on the meta device nothing is read
            tokenizer = open_tokenizer(config.text.tokenizer, padding_id=config.text.padding_id)
        if tokenizer is not None:
            refuse_foreign(tokenizer, config.text.vocabulary)
            self.tokenizer = tokenizer
        self.checkpoint_hash = ""
        self.in_one_pass = False  # as of a dual encoder
        number_places(self)

    @property
    def width(self) -> int:
        """Of a state."""
        return self.config.text.output_width

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids (B, n) int64 and mask (B, n) bool, n ≤ context, on the model's device."""
        ids, mask = self.tokenizer.encode(texts, length=self.config.text.context)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def forward(self, ids: Tensor, mask: Tensor, keys: Tensor | None = None) -> Tensor:
        """ids and mask (B, n) → (B, c), not normalised. keys (B,) int64 are the pairs' own, for dropout."""
        pooling, end = self.config.text.pooling, self.tokenizer.sep_id
        pooled = pooled_states(
            self.text, ids, mask, keys, pooling=pooling, end=end, in_one_pass=self.in_one_pass
        )
        return pooled if self.text_head is None else self.text_head(pooled)

"""The prior of unCLIP (R2D2 App. C): from a text to an image embedding of the dual encoder that it was trained with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlcli.models.diffusers_extra import need_diffusers
from vlcli.models.diffusion_config import PriorConfig

TOKENS = 4  # behind the text: its pooled vector, the noise level, the noisy embedding, the one that is read


class TextCondition(NamedTuple):
    """Texts as the dual encoder says them: pooled (b, d) of length 1, hidden states (b, n, c) and which of them are
    no padding, mask (b, n)."""

    pooled: Tensor
    hidden: Tensor
    mask: Tensor

    def dropped(self, gone: Tensor) -> TextCondition:
        """The same without the texts for which gone (b,) holds: a zero vector, and nothing to attend to."""
        pooled = self.pooled.masked_fill(gone[:, None], 0.0)
        return TextCondition(pooled, self.hidden, self.mask & ~gone[:, None])

    def rows(self, index: slice) -> TextCondition:
        return TextCondition(*(x[index] for x in self))


class Prior(nn.Module):
    """`prior(noisy (b, d), level (b,), texts)` → the embedding (b, d) without its noise. Embeddings are standardised:
    mean 0 and deviation 1 in every dimension, over the training data."""

    kind = "prior"

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.heads * config.head_width
        self.text_projection = nn.Linear(
            config.text_width, inner
        )  # states are wider than embeddings, or narrower
        self.body = need_diffusers().PriorTransformer(
            num_attention_heads=config.heads,
            attention_head_dim=config.head_width,
            num_layers=config.layers,
            embedding_dim=config.dim,
            num_embeddings=config.context,
            additional_embeddings=TOKENS,
            dropout=config.dropout,
            embedding_proj_norm_type="layer",  # brings vectors of length 1 to the size of all else
            encoder_hid_proj_type=None,
        )
        for constant in (self.body.clip_mean, self.body.clip_std):
            constant.requires_grad_(False)
        self.checkpoint_hash = ""

    @property
    def device(self) -> torch.device:
        return self.body.clip_mean.device

    @torch.no_grad()
    def standardise_by(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the mean (d,) and standard deviation (d,) of the training data's image embeddings."""
        self.body.clip_mean.copy_(mean[None])
        self.body.clip_std.copy_(deviation[None])

    def standardise(self, embedding: Tensor) -> Tensor:
        return (embedding - self.body.clip_mean) / self.body.clip_std

    def restore(self, standard: Tensor) -> Tensor:
        """What `standardise` made of an embedding, back."""
        embedding: Tensor = self.body.post_process_latents(standard)
        return embedding

    def forward(self, noisy: Tensor, level: Tensor, texts: TextCondition) -> Tensor:
        missing = self.config.context - texts.mask.shape[1]
        hidden = nn.functional.pad(self.text_projection(texts.hidden), (0, 0, 0, missing))
        mask = nn.functional.pad(texts.mask, (0, missing))
        out: Tensor = self.body(noisy, level, texts.pooled, hidden, mask, return_dict=False)[0]
        return out

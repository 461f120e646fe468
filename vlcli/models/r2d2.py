"""The ranking part of R2D2: two cross encoders over the towers' states, and their heads (R2D2 §3.1, §3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlcli.models.config import CrossConfig, RankingConfig
from vlcli.models.cross_encoder import CrossEncoder, initialise
from vlcli.models.image_tower import ImageFeatures


class TextStates(NamedTuple):
    """What the text tower says of every token: hidden (a, n, width), mask (a, n) not padding."""

    hidden: Tensor
    mask: Tensor


class Pairs(NamedTuple):
    """Which text stands with which image: rows of the texts and of the images, both (p,)."""

    texts: Tensor
    images: Tensor


class Ranked(NamedTuple):
    """Of every pair: the states of its text that has seen the image (p, n, width), and the logits of both matching
    heads, (p, 2) each, of which [:, 1] speaks for a match."""

    hidden: Tensor
    text_logits: Tensor
    image_logits: Tensor

    @property
    def probability(self) -> Tensor:
        """(p,) the mean of the two match probabilities (R2D2 App. C)."""
        return (self.text_logits.softmax(1)[:, 1] + self.image_logits.softmax(1)[:, 1]) / 2

    @property
    def log_odds(self) -> Tensor:
        """(p,) float64, log(q / (1 − q)) of `probability` q, exact where q is 0 or 1 in float32."""
        both = torch.stack([self.text_logits, self.image_logits]).double().log_softmax(-1).logsumexp(0)
        return both[:, 1] - both[:, 0]


def image_states(features: ImageFeatures) -> Tensor:
    """(b, 1 + n1, c): what stands for the picture as a whole, [CLS] where the tower has one, before its patches."""
    return torch.cat([features.pooled[:, None], features.tokens], 1)


class MaskHead(nn.Module):
    """A state at a masked place → logits over the vocabulary, as BERT has it: the embedding table is its last layer."""

    def __init__(self, width: int, vocabulary: int, config: CrossConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, config.eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        initialise(self, config.initializer_range)

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """hidden (m, width), table (vocabulary, width) → (m, vocabulary)."""
        return F.linear(self.norm(F.gelu(self.fc(hidden))), table, self.bias)


class Ranking(nn.Module):
    """`ranking(texts, images, pairs)` → `Ranked`.

    The text-image encoder's queries are texts and its keys images; the image-text encoder's the other way round,
    behind a linear layer that gives images the texts' width.
    """

    def __init__(self, text_width: int, image_width: int, vocabulary: int, config: RankingConfig) -> None:
        super().__init__()
        self.text_cross = CrossEncoder(text_width, image_width, config)
        self.image_bridge = nn.Linear(image_width, text_width)
        self.image_cross = CrossEncoder(text_width, text_width, config)
        self.text_head = nn.Linear(text_width, 2)
        self.image_head = None if config.shared_head else nn.Linear(text_width, 2)
        self.mask_head = MaskHead(text_width, vocabulary, config) if config.mask_head else None
        for layer in (self.image_bridge, self.text_head, self.image_head):
            if layer is not None:
                initialise(layer, config.initializer_range)

    def read_texts(
        self,
        texts: TextStates,
        images: Tensor,
        pairs: Pairs,
        *,
        text_keys: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Tensor:
        """The text-image encoder alone: (p, n, width)."""
        mask = seen(texts.mask)
        return self.text_cross(
            texts.hidden, images, pairs.texts, pairs.images, x_mask=mask, x_keys=text_keys, keys=keys
        )

    def forward(
        self,
        texts: TextStates,
        images: Tensor,
        pairs: Pairs,
        *,
        text_keys: Tensor | None = None,
        image_keys: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Ranked:
        """images (c, m, image width) as `image_states` gives them. text_keys (a,), image_keys (c,) and keys (p,)
        decide dropout."""
        hidden = self.read_texts(texts, images, pairs, text_keys=text_keys, keys=keys)
        looked = self.image_cross(
            self.image_bridge(images),
            texts.hidden,
            pairs.images,
            pairs.texts,
            y_mask=seen(texts.mask),
            x_keys=image_keys,
            keys=keys,
        )
        return Ranked(hidden, *self.heads(hidden[:, 0], looked[:, 0]))

    def heads(self, text_first: Tensor, image_first: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (p, 2) of both heads from the first states (p, width) of both encoders."""
        image_head = self.text_head if self.image_head is None else self.image_head
        return self.text_head(text_first), image_head(image_first)


def seen(mask: Tensor) -> Tensor:
    """The mask, with a first token for texts that have none: attention over nothing is no number."""
    mask = mask.clone()
    mask[:, 0] |= ~mask.any(1)
    return mask

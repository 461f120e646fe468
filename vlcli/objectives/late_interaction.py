"""Token-wise late interaction, both directions from one pass (FILIP Eq 3–5, Wukong Eq 5).

The score tensor (b, n1, B, n2) is never held: tiles of texts are multiplied, reduced by both maxima and forgotten.
The backward pass writes the two gradients of a tile to the saved arg-max positions and multiplies once per side, so
gradients are exact and the memory held is one tile and 16-bit positions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements of one tile of scores. 4 Mi float32 stay within a CPU's last-level cache neighbourhood and fill a GPU.
TILE_ELEMENTS = 1 << 22


class Similarity(NamedTuple):
    """Row = image, column = text, in both. They differ for token-wise similarity and are one tensor for global."""

    i2t: Tensor  # (b, B) what an image says of a text
    t2i: Tensor  # (b, B) what a text says of an image


class _Tile(torch.autograd.Function):
    """All images against a few texts. Saves who won each maximum; the scores are forgotten."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        image_factor: Tensor,
        text_factor: Tensor,
        image_mask: Tensor | None,
        weight_image: Tensor,
        weight_text: Tensor,
    ) -> tuple[Tensor, Tensor]:
        b, n1, d = image.shape
        T, n2, _ = text.shape
        scores = image_factor.reshape(b * n1, d) @ text_factor.reshape(T * n2, d).T
        scores = scores.to(weight_image.dtype).view(b, n1, T, n2)
        value, best_text = scores.max(3)  # (b, n1, T): which token r wins for patch k
        i2t = torch.einsum("bnt,bn->bt", value, weight_image)
        if image_mask is not None:
            scores = scores.masked_fill(~image_mask[:, :, None, None], -torch.inf)
        value, best_patch = scores.max(1)  # (b, T, n2): which patch k wins for token r
        t2i = torch.einsum("btr,tr->bt", value, weight_text)
        ctx.save_for_backward(
            image_factor,
            text_factor,
            weight_image,
            weight_text,
            best_text.to(torch.int16),
            best_patch.to(torch.int16),
        )
        ctx.kinds = image.dtype, text.dtype
        return i2t, t2i

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g_i2t, g_t2i = gradients  # (b, T)
        image, text, weight_image, weight_text, best_text, best_patch = ctx.saved_tensors
        b, n1, d = image.shape
        T, n2, _ = text.shape
        # The gradient of the tile of scores is zero but at the winners of either maximum.
        g = torch.zeros(b, n1, T, n2, dtype=weight_image.dtype, device=image.device)
        g.scatter_(3, best_text.long()[..., None], (weight_image[:, :, None] * g_i2t[:, None])[..., None])
        g.scatter_add_(1, best_patch.long()[:, None], (weight_text * g_t2i[:, :, None])[:, None])
        g = g.view(b * n1, T * n2)
        g_image = (g @ text.reshape(T * n2, d).to(g.dtype)).view(b, n1, d)
        g_text = (g.T @ image.reshape(b * n1, d).to(g.dtype)).view(T, n2, d)
        return g_image.to(ctx.kinds[0]), g_text.to(ctx.kinds[1]), None, None, None, None, None


def _accumulator(x: Tensor) -> torch.dtype:
    """Scores are kept in float32 at least, whatever autocast made of the tokens."""
    return torch.promote_types(x.dtype, torch.float32)


def _mean_weights(mask: Tensor, kind: torch.dtype) -> Tensor:
    """1/|set| on the members of each row's set, 0 elsewhere: an empty set averages to 0, not to NaN."""
    kept = mask.to(kind)
    return kept / kept.sum(1, keepdim=True).clamp(min=1)


def _factor(tokens: Tensor, half: bool) -> Tensor:
    """What is multiplied: the tokens themselves, or their fp16 values. A CPU multiplies the latter in float32, which
    holds each product of two exactly: its fp16 products take several times as long and round the sum."""
    tokens = tokens.detach()
    if not half:
        return tokens
    values = tokens.to(torch.float16)
    return values.to(_accumulator(tokens)) if tokens.device.type == "cpu" else values


def late_interaction(
    image_tokens: Tensor,
    text_tokens: Tensor,
    text_mask: Tensor,
    content_mask: Tensor | None = None,
    image_mask: Tensor | None = None,
    *,
    half: bool = False,
) -> Similarity:
    """Both token-wise similarities of every image with every text, differentiable.

    image_tokens (b, n1, d) and text_tokens (B, n2, d), L2-normalised; text_mask (B, n2) true on all tokens that are
    not padding: the only ones an image token may choose (others are −inf before the maximum). content_mask (B, n2):
    the set A_j that the text→image mean runs over (default text_mask; Wukong §4.3 leaves [CLS] and [SEP] out; an
    empty set scores 0). image_mask (b, n1): tokens that take part. Returns float32 (b, B) twice.
    `half`: products of fp16 values (FILIP §3.1.1); the gradient reaches the tokens unrounded, since fp16 would flush
    what is small in it to zero. FILIP Eq 3–5; scores are accumulated in float32 whatever the input's type.
    """
    b, n1, d = image_tokens.shape
    assert d == text_tokens.shape[2], "image and text tokens differ in width"
    assert max(n1, text_tokens.shape[1]) < 32768, "arg-max positions are 16 bits"
    if content_mask is None:
        content_mask = text_mask
    with torch.autocast(image_tokens.device.type, enabled=False):
        kind = _accumulator(image_tokens)
        weight_image = _mean_weights(image_tokens.new_ones(b, n1) if image_mask is None else image_mask, kind)
        weight_text = _mean_weights(content_mask, kind)
        # −inf on padding costs a pass over every score; a copy of a real token in its place never wins alone and
        # costs nothing. Its share of the gradient flows back to that token.
        first = text_mask.int().argmax(1)[:, None, None].expand(-1, 1, d)
        text = torch.where(text_mask[..., None], text_tokens, text_tokens.gather(1, first)).to(
            image_tokens.dtype
        )
        image_factor = _factor(image_tokens, half)
        order, tiles = _tiles(text_mask, b * n1)
        parts = []
        for rows, length in tiles:
            tile, weight = text[rows, :length], weight_text[rows, :length]
            parts.append(
                _Tile.apply(
                    image_tokens, tile, image_factor, _factor(tile, half), image_mask, weight_image, weight
                )
            )
        back = order.argsort()
        i2t, t2i = (torch.cat(side, 1)[:, back] for side in zip(*parts, strict=True))
        if image_mask is not None:  # −inf against an image without tokens becomes the 0 of an empty set
            t2i = t2i.where(image_mask.any(1)[:, None], 0.0)
        return Similarity(i2t * text_mask.any(1), t2i)


def _tiles(text_mask: Tensor, image_rows: int) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """Texts sorted by length, cut into tiles of at most TILE_ELEMENTS scores: (order, [(rows, length), …]).

    A tile is as long as its longest text, so short texts do not pay for the padding of long ones.
    """
    positions = torch.arange(1, text_mask.shape[1] + 1, device=text_mask.device)
    lengths = (text_mask * positions).amax(1).clamp(min=1)
    order = lengths.argsort(stable=True)
    sizes = lengths[order].tolist()
    tiles, start = [], 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and image_rows * sizes[stop] * (stop + 1 - start) <= TILE_ELEMENTS:
            stop += 1
        tiles.append((order[start:stop], sizes[stop - 1]))
        start = stop
    return order, tiles


def zero_padding(
    text_tokens: Tensor, text_mask: Tensor, content_mask: Tensor, padded: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and masks with which `late_interaction` scores as Wukong's released evaluation does: its padding is no
    −inf but a vector of zeros, so that no image token says less than 0 of a text that has any.

    padded (B,) bool: the texts shorter than the model's context, however long the longest text of this batch is. One
    zero vector before each of them does what all of its padding does; text→image does not change.
    """
    mask = torch.cat([padded[:, None], text_mask], 1)
    return F.pad(text_tokens, (0, 0, 1, 0)), mask, F.pad(content_mask, (1, 0))


def global_similarity(image: Tensor, text: Tensor) -> Similarity:
    """Cosine of L2-normalised image (b, d) and text (B, d) vectors; one tensor serves both directions."""
    kind = _accumulator(image)
    with torch.autocast(image.device.type, enabled=False):
        scores = image.to(kind) @ text.to(kind).T
    return Similarity(scores, scores)

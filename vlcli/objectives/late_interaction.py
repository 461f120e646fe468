"""Token-wise late interaction, both directions from one pass (FILIP Eq 3–5, Wukong Eq 5).

The score tensor (b, n1, B, n2) is never held: tiles of texts are multiplied, reduced by both maxima and forgotten.
The backward pass writes the two gradients of a tile to the saved arg-max positions and multiplies once per side, so
gradients are exact and memory is one tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Elements of one tile of scores. 4 Mi float32 stay within a CPU's last-level cache neighbourhood and fill a GPU.
TILE_ELEMENTS = 1 << 22


class Similarity(NamedTuple):
    """Row = image, column = text, in both. They differ for token-wise similarity and are one tensor for global."""

    i2t: Tensor  # (b, B) what an image says of a text
    t2i: Tensor  # (b, B) what a text says of an image


class _LateInteraction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        image_mask: Tensor | None,
        nonempty: Tensor,
        content_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        b, n1, d = image.shape
        B, n2, _ = text.shape
        flat = image.reshape(b * n1, d)
        kind = _accumulator(image)
        i2t, t2i = image.new_empty(b, B, dtype=kind), image.new_empty(b, B, dtype=kind)
        best_text = torch.empty(b, n1, B, dtype=torch.int16, device=image.device)  # r that wins for patch k
        best_patch = torch.empty(b, B, n2, dtype=torch.int16, device=image.device)  # k that wins for token r
        weight_image = _mean_weights(image_mask, image.new_ones(b, n1)).to(kind)  # (b, n1)
        weight_text = _mean_weights(content_mask, None).to(kind)  # (B, n2)
        step = max(1, TILE_ELEMENTS // (b * n1 * n2))
        for start in range(0, B, step):
            part = slice(start, min(start + step, B))
            t = text[part]
            scores = (flat @ t.reshape(-1, d).T).to(kind).view(b, n1, -1, n2)
            value, index = scores.max(3)  # (b, n1, T)
            i2t[:, part] = torch.einsum("bnt,bn->bt", value, weight_image) * nonempty[part]
            best_text[:, :, part] = index.to(torch.int16)
            if image_mask is not None:
                scores = scores.masked_fill(~image_mask[:, :, None, None], -torch.inf)
            value, index = scores.max(1)  # (b, T, n2)
            value = value.masked_fill(value == -torch.inf, 0.0)
            t2i[:, part] = torch.einsum("btr,tr->bt", value, weight_text[part])
            best_patch[:, part] = index.to(torch.int16)
        ctx.save_for_backward(image, text, nonempty, weight_image, weight_text, best_text, best_patch)
        return i2t, t2i

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        g_i2t, g_t2i = gradients
        image, text, nonempty, weight_image, weight_text, best_text, best_patch = ctx.saved_tensors
        b, n1, d = image.shape
        B, n2, _ = text.shape
        kind = _accumulator(image)
        flat = image.reshape(b * n1, d).to(kind)
        g_image = torch.zeros_like(flat)
        g_text = torch.empty(B, n2, d, dtype=kind, device=text.device)
        step = max(1, TILE_ELEMENTS // (b * n1 * n2))
        for start in range(0, B, step):
            part = slice(start, min(start + step, B))
            # (b, n1, T, n2): the gradient of the tile of scores, non-zero only at the winners of either maximum.
            g = torch.zeros(b, n1, best_text[:, :, part].shape[2], n2, dtype=kind, device=image.device)
            from_image = weight_image[:, :, None] * (g_i2t[:, part] * nonempty[part])[:, None]  # (b, n1, T)
            g.scatter_(3, best_text[:, :, part].long()[..., None], from_image[..., None])
            from_text = weight_text[part] * g_t2i[:, part, None]  # (b, T, n2)
            g.scatter_add_(1, best_patch[:, part].long()[:, None], from_text[:, None])
            g = g.view(b * n1, -1)
            g_image += g @ text[part].reshape(-1, d).to(kind)
            g_text[part] = (g.T @ flat).view(-1, n2, d)
        return g_image.view(b, n1, d).to(image.dtype), g_text.to(text.dtype), None, None, None


def _accumulator(x: Tensor) -> torch.dtype:
    """Scores are kept in float32 at least, whatever autocast made of the tokens."""
    return torch.promote_types(x.dtype, torch.float32)


def _mean_weights(mask: Tensor | None, ones: Tensor | None) -> Tensor:
    """1/|set| on the members of each row's set, 0 elsewhere: an empty set averages to 0, not to NaN."""
    if mask is None:
        assert ones is not None
        mask = ones
    kept = mask.float()
    return kept / kept.sum(1, keepdim=True).clamp(min=1)


def late_interaction(
    image_tokens: Tensor,
    text_tokens: Tensor,
    text_mask: Tensor,
    content_mask: Tensor | None = None,
    image_mask: Tensor | None = None,
) -> Similarity:
    """Both token-wise similarities of every image with every text, differentiable.

    image_tokens (b, n1, d) and text_tokens (B, n2, d), L2-normalised; text_mask (B, n2) true on all tokens that are
    not padding: the only ones an image token may choose (others are −inf before the maximum). content_mask (B, n2):
    the set A_j that the text→image mean runs over (default text_mask; Wukong §4.3 leaves [CLS] and [SEP] out; an
    empty set scores 0). image_mask (b, n1): tokens that take part. Returns float32 (b, B) twice.
    FILIP Eq 3–5; scores are accumulated in float32 whatever the input's type.
    """
    assert image_tokens.shape[2] == text_tokens.shape[2], "image and text tokens differ in width"
    assert max(image_tokens.shape[1], text_tokens.shape[1]) < 32768, "arg-max positions are 16 bits"
    if content_mask is None:
        content_mask = text_mask
    with torch.autocast(image_tokens.device.type, enabled=False):
        # −inf on padding costs a pass over every score; a copy of a real token in its place never wins alone and
        # costs nothing. Its share of the gradient flows back to that token.
        first = text_mask.int().argmax(1)[:, None, None].expand(-1, 1, text_tokens.shape[2])
        text = torch.where(text_mask[..., None], text_tokens, text_tokens.gather(1, first))
        i2t, t2i = _LateInteraction.apply(
            image_tokens, text.to(image_tokens.dtype), image_mask, text_mask.any(1), content_mask
        )
    return Similarity(i2t, t2i)


def global_similarity(image: Tensor, text: Tensor) -> Similarity:
    """Cosine of L2-normalised image (b, d) and text (B, d) vectors; one tensor serves both directions."""
    with torch.autocast(image.device.type, enabled=False):
        scores = image.float() @ text.float().T
    return Similarity(scores, scores)

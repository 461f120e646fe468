"""FILIP's token selection: of each sample, the tokens that agree best with anything on the other side (FILIP §3.1.1).

The score of an image token is its largest dot product with any valid token of any text, that of a text token its
largest with any token of any image. ⌈keep · n⌉ tokens stay, of n patches or n non-padded tokens (spec D16). Which
ones is no differentiable question: scores have no gradient, the kept tokens have theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlcli.objectives import late_interaction


@torch.no_grad()
def token_scores(image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the tokens of images (b, n1, d) against texts (B, n2, d) and the other way: (b, n1) and (B, n2), the
    latter −inf where text_mask (B, n2) is false. Both maxima come from one product, in tiles."""
    with torch.autocast(image_tokens.device.type, enabled=False):
        patches, words = image_tokens.flatten(0, 1), text_tokens[text_mask].to(image_tokens.dtype)
        of_patches = patches.new_full((len(patches),), -torch.inf)
        of_words = []
        for tile in words.split(max(1, late_interaction.TILE_ELEMENTS // len(patches))):
            scores = patches @ tile.T
            of_patches = torch.maximum(of_patches, scores.amax(1))
            of_words.append(scores.amax(0))
        of_texts = patches.new_full(text_mask.shape, -torch.inf)
        of_texts[text_mask] = torch.cat(of_words)
    return of_patches.view(image_tokens.shape[:2]), of_texts


def kept_counts(lengths: Tensor, keep: float) -> Tensor:
    """max(1, ⌈keep · n⌉) for each n of lengths (…) int64."""
    # 0.07 · 100 is a little more than 7 in binary, and its ceiling is not meant to be 8
    return torch.ceil((keep * lengths.double()).round(decimals=9)).long().clamp(min=1)


def best_positions(scores: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The positions of the counts (b,) largest scores (b, n) of each row, in ascending order, and which of them count:
    int64 and bool, (b, max count). Among equal scores the earlier position is kept."""
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(1)
    kept = rank < counts[:, None]
    width = int(counts.max())
    positions = kept.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    return positions, torch.arange(width, device=scores.device) < counts[:, None]


def select_image_tokens(tokens: Tensor, scores: Tensor, keep: float) -> Tensor:
    """(b, n1, d) → (b, max(1, ⌈keep · n1⌉), d)."""
    lengths = torch.full(tokens.shape[:1], tokens.shape[1], device=tokens.device)
    positions, _ = best_positions(scores, kept_counts(lengths, keep))
    return _take(tokens, positions)


def select_text_tokens(
    tokens: Tensor, mask: Tensor, content_mask: Tensor, scores: Tensor, keep: float
) -> tuple[Tensor, Tensor, Tensor]:
    """tokens (B, n2, d) and both masks (B, n2) → the same, of the kept tokens, padded to the most that a text keeps.

    The best content token of a text is always among them, so that the text→image mean of no text is over nothing.
    """
    place = scores.masked_fill(~content_mask, -torch.inf).argmax(1, keepdim=True)
    first = scores.gather(1, place).masked_fill(content_mask.any(1, keepdim=True), torch.inf)
    scores = scores.scatter(1, place, first)
    positions, valid = best_positions(scores, kept_counts(mask.sum(1), keep))
    return (
        _take(tokens, positions),
        mask.gather(1, positions) & valid,
        content_mask.gather(1, positions) & valid,
    )


def _take(tokens: Tensor, positions: Tensor) -> Tensor:
    return tokens.gather(1, positions[..., None].expand(-1, -1, tokens.shape[2]))

"""Token-wise late interaction, both directions from one pass (FILIP Eq 3–5, Wukong Eq 5).

The score tensor (b, n1, B, n2) is never held: tiles of images and texts are multiplied, reduced by both maxima and
forgotten, all but who won. A score that won nothing has no gradient, so the backward pass multiplies no matrices: it
adds up, for each token, the vectors that it won with or lost to, of which there are b·B·(n1 + n2) in place of the
b·B·n1·n2 products.

Winners are saved (16 bits each), not found again: measured on two cores at (b, n1, n2, d) = (128, 49, 32, 256), finding
them again is a matrix product of a third of the whole time, saving them is 3 MB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlcli.objectives.fused import agreeing, fused

# Of one tile: columns enough for a matrix product at full speed, and on a CPU no more scores than its caches hold.
TILE_COLUMNS = 1024
TILE_ELEMENTS = 1 << 21
# A tile has a multiple of so many texts: rows of scores that begin at no vector's bounds cost a third more.
TEXTS_TOGETHER = 8
TILE_ELEMENTS_ON_GPU = 1 << 24
# Winners whose vectors the backward pass adds up at a time: about 20 bytes each.
WINNERS = 1 << 19


class Similarity(NamedTuple):
    """Row = image, column = text, in both. They differ for token-wise similarity and are one tensor for global."""

    i2t: Tensor  # (b, B) what an image says of a text
    t2i: Tensor  # (b, B) what a text says of an image


class _LateInteraction(torch.autograd.Function):
    """Both similarities, (b, B) each, of image (b, n1, d) and text (B, n2, d), of which `weight_image` (b, n1) and
    `weight_text` (B, n2) weigh the maxima. `patch` (b, n1) and `word` (B, n2) int64 are the positions that take part
    in place of each: those of real tokens."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        patch: Tensor | None,
        word: Tensor,
        weight_image: Tensor,
        weight_text: Tensor,
        tiles: list[tuple[Tensor, int]],
        half: bool,
    ) -> tuple[Tensor, Tensor]:
        (b, n1, _), (B, n2, _) = image.shape, text.shape
        patches, words = _factor(image, patch, half), _factor(text, None, half)
        i2t, t2i = weight_image.new_empty(b, B), weight_image.new_empty(b, B)
        saved = any(ctx.needs_input_grad)
        room = _room(patches, words, i2t.dtype)
        if saved:
            best_word = torch.empty(B, b, n1, dtype=torch.int16, device=image.device)
            best_patch = torch.zeros(b, B, n2, dtype=torch.int16, device=image.device)
        for rows, length in tiles:
            T = len(rows)
            place = word[rows, :length].T  # (length, T): positions first, for both maxima to run over vectors
            tile = words[rows, place].flatten(0, 1).T  # (d, length · T)
            for images in _slices(b, n1 * length * T, _elements(image)):
                scores = _products(patches[images].flatten(0, 1), tile, room)  # (b' · n1, length · T)
                # (b' · n1, T): which token wins for a patch
                value, winner = _max(scores.view(-1, length, T), where=saved)
                i2t[images, rows] = (value.view(-1, n1, T) * weight_image[images, :, None]).sum(1)
                if winner is not None:
                    best_word[rows, images] = (
                        place.gather(0, winner).view(-1, n1, T).permute(2, 0, 1).to(torch.int16)
                    )
                # (b', length · T): which patch for a token
                value, winner = _max(scores.view(-1, n1, length * T), where=saved)
                t2i[images, rows] = (value.view(-1, length, T) * weight_text[rows, :length].T).sum(1)
                if winner is not None:
                    if patch is not None:
                        winner = patch[images].gather(1, winner)
                    best_patch[images, rows, :length] = (
                        winner.view(-1, length, T).transpose(1, 2).to(torch.int16)
                    )
        if saved:
            ctx.save_for_backward(image, text, weight_image, weight_text, best_word, best_patch)
        ctx.half = half
        return i2t, t2i

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        image, text, weight_image, weight_text, best_word, best_patch = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        kind = weight_image.dtype
        patches, words = (_factor(x, None, ctx.half).flatten(0, 1).to(kind) for x in (image, text))
        arguments = (weight_image, weight_text, best_word, best_patch, *gradients)
        g_image = _image_gradient(words, *arguments).to(image.dtype) if wanted[0] else None
        g_text = _text_gradient(patches, *arguments).to(text.dtype) if wanted[1] else None
        return g_image, g_text, None, None, None, None, None, None


def _image_gradient(
    words: Tensor,
    weight_image: Tensor,
    weight_text: Tensor,
    best_word: Tensor,
    best_patch: Tensor,
    g_i2t: Tensor,
    g_t2i: Tensor,
) -> Tensor:
    """(b, n1, d) from words (B · n2, d): of each patch, its best token in every text, and the tokens it is best for."""
    B, b, n1 = best_word.shape
    n2 = best_patch.shape[2]
    gradient = words.new_empty(b, n1, words.shape[1])
    start = torch.arange(B, device=words.device) * n2
    counted = weight_text.flatten().nonzero()[:, 0]  # (M,) the tokens that the text→image mean is over
    of_text, weight = counted // n2, weight_text.flatten()[counted]
    for images in _slices(b, B * n1 + len(counted), WINNERS):
        index = best_word[:, images].permute(1, 2, 0) + start  # (b', n1, B)
        count = len(index)
        g = g_i2t[images, None].expand(-1, n1, -1)
        own = _sums(words, index.flatten(0, 1), g.flatten(0, 1)).view(count, n1, -1)
        won, order = best_patch[images].flatten(1)[:, counted].sort(dim=1, stable=True)  # (b', M)
        g = (g_t2i[images][:, of_text] * weight).gather(1, order)
        others = _sums(words, counted[order].flatten(), g.flatten(), _sizes(won, n1))
        gradient[images] = own * weight_image[images, :, None] + others.view_as(own)
    return gradient


def _text_gradient(
    patches: Tensor,
    weight_image: Tensor,
    weight_text: Tensor,
    best_word: Tensor,
    best_patch: Tensor,
    g_i2t: Tensor,
    g_t2i: Tensor,
) -> Tensor:
    """(B, n2, d) from patches (b · n1, d): of each token, its best patch in every image, and the patches it is best
    for."""
    B, b, n1 = best_word.shape
    n2 = best_patch.shape[2]
    gradient = patches.new_empty(B, n2, patches.shape[1])
    start = torch.arange(b, device=patches.device) * n1
    counted = weight_text != 0
    for texts in _slices(B, b * (n1 + n2), WINNERS):
        won, order = best_word[texts].flatten(1).sort(dim=1, stable=True)  # (T, b · n1)
        g = (g_i2t.T[texts, :, None] * weight_image).flatten(1).gather(1, order)
        others = _sums(patches, order.flatten(), g.flatten(), _sizes(won, n2))
        gradient[texts] = others.view(-1, n2, patches.shape[1])
        mean = counted[texts]
        index = best_patch[:, texts][:, mean].T + start  # (M, b)
        g = g_t2i.T[texts, None].expand(-1, n2, -1)[mean]
        gradient[texts][mean] += _sums(patches, index, g) * weight_text[texts][mean][:, None]
    return gradient


def _sums(table: Tensor, index: Tensor, weight: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Weighted sums of rows of a table (rows, d), one for each row of index and weight (sums, k), or, of flat ones,
    for each of the stretches that `sizes` long (sums,) they fall into → (sums, d)."""
    offsets = None if sizes is None else F.pad(sizes.cumsum(0), (1, -1))
    return F.embedding_bag(index.long(), table, offsets, mode="sum", per_sample_weights=weight.contiguous())


def _sizes(values: Tensor, kinds: int) -> Tensor:
    """How often each of 0 … kinds − 1 stands in each row of values (rows, k) → (rows · kinds,)."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return torch.bincount((values + rows * kinds).flatten(), minlength=len(values) * kinds)


def _room(patches: Tensor, words: Tensor, kind: torch.dtype) -> Tensor | None:
    """Memory that all tiles of a call are multiplied into on a CPU: fresh memory for each would be zeroed for each by
    the system, which halves the speed of the products."""
    if patches.device.type != "cpu" or patches.dtype != kind or words.dtype != kind:
        return None
    return patches.new_empty(TILE_ELEMENTS)


def _products(patches: Tensor, tile: Tensor, room: Tensor | None) -> Tensor:
    """patches (m, d) @ tile (d, n), float32 at least, in `room` if it is large enough."""
    rows, columns = len(patches), tile.shape[1]
    if room is None or rows * columns > len(room):
        return (patches @ tile).to(_accumulator(patches))
    return torch.mm(patches, tile, out=room[: rows * columns].view(rows, columns))


def _max(scores: Tensor, *, where: bool) -> tuple[Tensor, Tensor | None]:
    """Maximum and, if `where`, its position over dimension 1 of (rows, n, columns). On a CPU as pooling of
    channels-last pictures n high: torch vectorises that, and not `max` with positions, which takes five times as
    long."""
    if not where:
        return scores.amax(1), None
    if scores.device.type != "cpu":
        return scores.max(1)
    picture = scores[:, :, None].permute(0, 3, 1, 2)  # (rows, columns, n, 1)
    value, position = F.max_pool2d(picture, (scores.shape[1], 1), return_indices=True)
    return value[:, :, 0, 0], position[:, :, 0, 0]


def _slices(count: int, each: int, limit: int) -> Iterator[slice]:
    """0 … count − 1 in parts of about one size, each part of at most `limit` elements, or of one item."""
    parts = -(-count // max(1, limit // max(1, each)))
    bounds = [count * part // max(parts, 1) for part in range(parts + 1)]
    return itertools.starmap(slice, itertools.pairwise(bounds))


def _accumulator(x: Tensor) -> torch.dtype:
    """Scores are kept in float32 at least, whatever autocast made of the tokens."""
    return torch.promote_types(x.dtype, torch.float32)


def _mean_weights(mask: Tensor, kind: torch.dtype) -> Tensor:
    """1/|set| on the members of each row's set, 0 elsewhere: an empty set averages to 0, not to NaN."""
    kept = mask.to(kind)
    return kept / kept.sum(1, keepdim=True).clamp(min=1)


def _factor(tokens: Tensor, place: Tensor | None, half: bool) -> Tensor:
    """What is multiplied, at `place` (…, n) of tokens (…, n, d): the tokens themselves, or their fp16 values. Nothing
    but such a `half` on a GPU is multiplied in 16 bits, whose sums would be rounded; a CPU's fp16 products take several
    times as long as well."""
    if place is not None:
        tokens = tokens.gather(1, place[..., None].expand_as(tokens))
    values = tokens.to(torch.float16) if half else tokens
    return values if half and tokens.device.type != "cpu" else values.to(_accumulator(tokens))


def _elements(x: Tensor) -> int:
    return TILE_ELEMENTS if x.device.type == "cpu" else TILE_ELEMENTS_ON_GPU


@torch.compiler.disable  # tiles follow the texts' lengths, and every step has others
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
    n1, d = image_tokens.shape[1:]
    n2 = text_tokens.shape[1]
    assert d == text_tokens.shape[2], "image and text tokens differ in width"
    assert max(n1, n2) < 32768, "positions of winners are 16 bits"
    arguments = (
        image_tokens,
        text_tokens.to(image_tokens.dtype),
        text_mask,
        text_mask if content_mask is None else content_mask,
        image_mask,
    )
    with torch.autocast(image_tokens.device.type, enabled=False):
        maxsim = agreeing(_by_tiles, image_tokens.device, image_tokens.dtype, d, half)
        if maxsim is not None:
            return Similarity(*fused(maxsim, *arguments, half=half))
        return Similarity(*_by_tiles(*arguments, half=half))


@torch.no_grad()
def image_to_text(image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> Tensor:
    """(b, B) float32: the image→text part of `late_interaction`, of the same arguments, without a gradient. A ranking
    of texts by images, as in classification, needs no more: one maximum of each score, and no position of any.
    """
    b, n1 = image_tokens.shape[:2]
    kind = _accumulator(image_tokens)
    patches, word = image_tokens.to(kind).flatten(0, 1), _taking_part(text_mask)
    i2t = patches.new_empty(b, len(text_tokens))
    room = _room(patches, patches, kind)
    elements = _elements(image_tokens)
    for rows, length in _tiles(text_mask, n1, elements):
        place = word[rows, :length].T  # (length, T): positions first, for the maximum to run over vectors
        tile = text_tokens[rows, place].to(kind).flatten(0, 1).T  # (d, length · T)
        for images in _slices(b, n1 * tile.shape[1], elements):
            scores = _products(patches[images.start * n1 : images.stop * n1], tile, room)
            best = scores.view(-1, length, len(rows)).amax(1)  # (b' · n1, T)
            i2t[images, rows] = best.view(-1, n1, len(rows)).mean(1)
    return i2t * text_mask.any(1)


def _by_tiles(
    image: Tensor,
    text: Tensor,
    text_mask: Tensor,
    content_mask: Tensor,
    image_mask: Tensor | None,
    *,
    half: bool,
) -> tuple[Tensor, Tensor]:
    kind = _accumulator(image)
    i2t, t2i = _LateInteraction.apply(
        image,
        text,
        None if image_mask is None else _taking_part(image_mask),
        _taking_part(text_mask),
        _mean_weights(image.new_ones(image.shape[:2]) if image_mask is None else image_mask, kind),
        _mean_weights(content_mask, kind),
        _tiles(text_mask, image.shape[1], _elements(image)),
        half,
    )
    if image_mask is not None:  # what stands under the mask of an image without tokens says nothing
        t2i = t2i.where(image_mask.any(1)[:, None], 0.0)
    return i2t * text_mask.any(1), t2i


def _taking_part(mask: Tensor) -> Tensor:
    """(b, n) int64: each position itself, and the first that the mask has in place of those it leaves out. −inf in
    their place would cost a pass over every score; a copy of a real token never wins alone and costs nothing."""
    position = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, position, mask.int().argmax(1, keepdim=True))


def _tiles(text_mask: Tensor, n1: int, elements: int) -> list[tuple[Tensor, int]]:
    """Texts sorted by length, cut into tiles of at most TILE_COLUMNS tokens: [(rows, length), …].

    A tile is as long as its longest text, so short texts do not pay for the padding of long ones.
    """
    positions = torch.arange(1, text_mask.shape[1] + 1, device=text_mask.device)
    lengths = (text_mask * positions).amax(1).clamp(min=1)
    order = lengths.argsort(stable=True)
    sizes = lengths[order].tolist()
    columns = min(TILE_COLUMNS, elements // n1)
    tiles, start = [], 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and sizes[stop] * (stop + 1 - start) <= columns:
            stop += 1
        if stop < len(sizes) and stop - start > TEXTS_TOGETHER:
            stop -= (stop - start) % TEXTS_TOGETHER
        tiles.append((order[start:stop], sizes[stop - 1]))
        start = stop
    return tiles


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

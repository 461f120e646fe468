"""A recipe's objective on the features of one step: select tokens, gather, compare, weigh."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vlcli.models.dual import DualEncoder, ImageTokens, TextTokens
from vlcli.objectives.contrastive import contrastive_loss, kept_negatives, positive_targets
from vlcli.objectives.token_selection import (
    kept_counts,
    select_image_tokens,
    select_text_tokens,
    token_scores,
)
from vlcli.schemas.objectives import ObjectiveConfig, TokensConfig
from vlcli.training.gather import gather_images, gather_texts
from vlcli.training.processes import world_size


class Objective:
    """`objective(image, text, scale, codes, local, step)` → the dict of `contrastive_loss`.

    image and text are a process's own rows, `local` of the global batch; codes (k, N) are the identities of all its
    pairs. Mean over processes, as DDP takes it, loss and gradients are those of one process on the global batch,
    however unequal the shares: but with `tokens.scope = "local"`, where they are those of one process that selects
    tokens share by share.
    """

    def __init__(self, model: DualEncoder, config: ObjectiveConfig, *, seed: int) -> None:
        self.model, self.config, self.seed = model, config, seed

    def __call__(
        self, image: ImageTokens, text: TextTokens, scale: Tensor, codes: Tensor, local: slice, step: int
    ) -> dict[str, Tensor]:
        config = self.config
        half = config.tokens.precision == "fp16"
        if config.tokens.keep < 1:
            image, text = select(image, text, config.tokens)
        all_images, all_texts = gather_images(image, half=half), gather_texts(text, half=half)
        if local.start == local.stop:
            return _nothing(all_images, all_texts, scale)
        rows = self.model.similarity(image, all_texts, half=half)
        columns = rows if all_images is image else self.model.similarity(all_images, text, half=half)
        positives = positive_targets(*zip(codes[:, local], codes, strict=True))  # (b, N): the same both ways
        kept = None
        if config.negatives < 1:
            kept = kept_negatives(positives, local.start, self._seats(step, codes), config.negatives)
        return contrastive_loss(
            rows,
            columns,
            scale,
            positives,
            positives.T,
            row_kept=kept,
            column_kept=None if kept is None else kept.T,
            reduction=config.reduction,
            smoothing=config.label_smoothing,
            count=codes.shape[1] / world_size(),  # not b: shares may differ
        )

    def _seats(self, step: int, codes: Tensor) -> Tensor:
        """(N,) the circle of a step, of (seed, step) alone; the 2 keeps it apart from the order of an epoch."""
        seats = np.random.default_rng([self.seed, step, 2]).permutation(codes.shape[1])
        return torch.from_numpy(seats).to(codes.device)


def _nothing(images: ImageTokens, texts: TextTokens, scale: Tensor) -> dict[str, Tensor]:
    """The loss of a process without a share, in whose graph the gathers still are: going back through them is something
    that all processes do together."""
    sides = [x for x in (images.tokens, images.pooled, texts.tokens, texts.pooled) if x is not None]
    zero = sum((x.sum() for x in sides), scale.sum()) * 0.0
    return {"contrastive_loss": zero, "i2t": zero.detach(), "t2i": zero.detach()}


def select(image: ImageTokens, text: TextTokens, config: TokensConfig) -> tuple[ImageTokens, TextTokens]:
    """Keep a share of the tokens of a process's own images and texts (FILIP §3.1.1), scored against those of the same
    process ("local") or of all ("global")."""
    assert image.tokens is not None
    assert text.tokens is not None
    if not len(image.tokens) and (config.scope == "local" or world_size() == 1):
        return _none_selected(image, text, config)
    if config.scope == "local" or world_size() == 1:
        image_scores, text_scores = token_scores(image.tokens, text.tokens, text.mask)
    else:
        with torch.no_grad():
            all_images, all_texts = gather_images(image), gather_texts(text)
        assert all_images.tokens is not None
        assert all_texts.tokens is not None
        if not len(image.tokens):
            return _none_selected(image, text, config)
        image_scores = token_scores(image.tokens, all_texts.tokens, all_texts.mask)[0]
        text_scores = token_scores(all_images.tokens, text.tokens, text.mask)[1]
    patches = select_image_tokens(image.tokens, image_scores, config.keep)
    words = select_text_tokens(text.tokens, text.mask, text.content_mask, text_scores, config.keep)
    return image._replace(tokens=patches), TextTokens(*words, text.pooled)


def _none_selected(
    image: ImageTokens, text: TextTokens, config: TokensConfig
) -> tuple[ImageTokens, TextTokens]:
    """Of a process without a share: as many tokens an image as the others keep, for all to have one shape."""
    assert image.tokens is not None
    kept = int(kept_counts(torch.tensor(image.tokens.shape[1]), config.keep))
    return image._replace(tokens=image.tokens[:, :kept]), text

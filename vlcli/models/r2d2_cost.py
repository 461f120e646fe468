"""Floating point operations of R2D2's ranking, in closed form from its shapes: what enhanced training spares (§3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from vlcli.models.config import RankingConfig


@dataclass(frozen=True)
class RankingCost:
    """Operations of the forward pass of one training pair, two for a multiplication with an addition.

    `match`: three pairs of texts and images through both cross encoders and heads; `words`: the head for masked words;
    `own_pass`: what masked words cost beside them where training is not enhanced.
    """

    match: int
    words: int
    own_pass: int

    def step(self, *, words: bool, enhanced: bool) -> int:
        """Of a pair in a step, with masked words or without."""
        return self.match + (self.words + (0 if enhanced else self.own_pass) if words else 0)


def ranking_cost(
    config: RankingConfig,
    *,
    width: int,
    image_width: int,
    vocabulary: int,
    words: int,
    patches: int,
    masked: int,
) -> RankingCost:
    """Texts of `words` tokens, `masked` of which are guessed; pictures of `patches` vectors, the one for the whole
    among them. Each training pair stands against a hard text and a hard image, which are another pair's of the same
    process."""
    text = _cross(config, width, image_width, queries=words, keys=patches, pairs=3)
    image = _cross(config, width, width, queries=patches, keys=words, pairs=3)
    bridge = 2 * patches * image_width * width
    heads = 3 * 2 * (2 * width * 2)
    return RankingCost(
        match=text + image + bridge + heads,
        words=masked * (2 * width * width + 2 * width * vocabulary) if config.mask_head else 0,
        own_pass=_cross(config, width, image_width, queries=words, keys=patches, pairs=1),
    )


def _cross(config: RankingConfig, width: int, other: int, *, queries: int, keys: int, pairs: int) -> int:
    """One cross encoder on `pairs` pairs for each input of either side."""
    own = queries * 8 * width * width + 4 * queries * queries * width  # query, key, value, out; products
    key_value = keys * 4 * other * width
    mlp = 4 * queries * width * config.intermediate
    across = queries * 4 * width * width + 4 * queries * keys * width + mlp
    return (1 + (config.layers - 1) * pairs) * own + config.layers * (key_value + pairs * across)

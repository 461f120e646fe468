"""Vectors of pictures for a probe: before the projection into the joint space, or after it.

`pre` is the image tower's own pooled output as it comes, which CLIP's linear probe and ALIGN's nearest neighbours
read. `post` is what is compared with texts: the pooled vector of length 1, or, of a token-wise or reduced model, the
direction of the mean of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from vlcli.evaluation.embed import Progress, embed_images
from vlcli.evaluation.vectors import mean_token

if TYPE_CHECKING:
    from vlcli.evaluation.feature_cache import FeatureCache

Features = Literal["pre", "post"]


class _Tower:
    """The image tower of a model as something that encodes."""

    def __init__(self, model: Any) -> None:
        self.model, self.preprocess, self.device = model, model.preprocess, model.device

    def encode_image(self, pixels: Tensor) -> Any:
        from vlcli.models.dual import ImageTokens

        return ImageTokens(None, self.model.image_features(pixels, pooled_only=True).pooled)


def image_vectors(
    model: Any,
    source: Any,
    which: Features,
    *,
    rows: Sequence[int] | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """(n, d) float32 of `rows` of a PairTable (default all); for errors see `embed_images`."""
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "precision": precision,
        "progress": progress,
        "cache": cache,
    }
    if which == "pre":
        found = embed_images(_Tower(model), source, rows, what="tower", **options)
    else:
        found = embed_images(model, source, rows, **options)
    if found.pooled is not None:
        return found.pooled
    assert found.tokens is not None, "an image has tokens where it has no vector"
    return mean_token(found.tokens)

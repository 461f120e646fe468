"""The nets that pictures are compared in. To `embed_images` and its cache each is a model that sees pictures alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from vlcli.errors import UsageError
from vlcli.images.config import PreprocessConfig
from vlcli.images.preprocess import Preprocess
from vlcli.models.dual import ImageTokens


class FeatureNet:
    """pixels (b, 3, h, w) → vectors (b, dim), of whatever length the net gives them.

    name: what results call it. checkpoint_hash: 16 hex over the weights and what is taken of them.
    """

    similarity_kind = "global"  # one vector a picture, to the cache

    def __init__(
        self,
        name: str,
        body: Callable[[Tensor], Tensor],
        preprocess: PreprocessConfig,
        dim: int,
        weights: str,
        device: Any,
    ) -> None:
        self.name, self.dim, self.device = name, dim, device
        self._body = body
        self.preprocess = Preprocess(preprocess)
        self.config = SimpleNamespace(image=SimpleNamespace(preprocess=preprocess))
        self.checkpoint_hash = hashlib.sha256(f"features {name} {weights}".encode()).hexdigest()[:16]

    def encode_image(self, pixels: Tensor) -> ImageTokens:
        return ImageTokens(None, self._body(pixels))

    def record(self) -> dict[str, Any]:
        """What stands beside a number that was taken in this net."""
        return {"net": self.name, "dim": self.dim, "hash": self.checkpoint_hash}


def open_features(name: str, *, device: str = "auto", precision: str = "fp32") -> FeatureNet:
    """The net that --features names: `package:NAME`, a run or checkpoint, or a file of Inception's weights.

    Of a package the pooled output as it is; of a checkpoint the vector of an image in the joint space, of length √dim,
    so that the kernel of KID sees the cosine. Raises UsageError for a name that is none of these.
    """
    from vlcli.models.checkpoint import resolve_device

    if name.startswith("package:"):
        from vlcli.evaluation.vectors import open_tower

        tower = open_tower(name, init=None, size=None, device=device, precision=precision)
        return FeatureNet(
            tower.config.name,
            lambda pixels: tower.tower(pixels).pooled,
            tower.config.preprocess,
            tower.dim,
            tower.record()["weights"],
            tower.device,
        )
    if os.path.isfile(name):
        from vlcli.evaluation.picture_metrics import inception

        place = resolve_device(device)
        net, called = inception.read_inception(Path(name))
        net = net.eval().requires_grad_(False).to(place)
        weights = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        return FeatureNet(called, net, inception.PREPROCESS, inception.DIM, weights, place)
    if not os.path.exists(name):
        raise UsageError(f"--features {name}: no run, checkpoint, file of weights or package:NAME")
    import vlcli
    from vlcli.evaluation.vectors import image_vectors

    model = vlcli.load(name, device=str(resolve_device(device)))
    length = model.config.dim**0.5
    return FeatureNet(
        f"checkpoint {model.checkpoint_hash}",
        lambda pixels: image_vectors(model.encode_image(pixels)) * length,
        model.config.image.preprocess,
        model.config.dim,
        model.checkpoint_hash,
        model.device,
    )

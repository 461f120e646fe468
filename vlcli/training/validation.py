"""The score that chooses the best checkpoint: retrieval on the validation pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import collect, embed_images, embed_texts, similarity_of, to_cpu
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.retrieval import retrieval
from vlcli.models.dual import DualEncoder
from vlcli.shards.pairs import PairTable
from vlcli.training.features import FeatureStore


class Validation:
    """Recalls of a model on a table; with a feature store the images are not encoded again."""

    def __init__(
        self, table: PairTable, *, store: FeatureStore | None, store_rows: np.ndarray | None, precision: str
    ) -> None:
        self.table, self.store, self.store_rows, self.precision = table, store, store_rows, precision
        self.gallery = Gallery.of(table)

    def __call__(self, model: DualEncoder) -> dict[str, Any]:
        """{"images", "texts", "i2t", "t2i", "MR"} in percent, without intervals; the model returns to training."""
        model.eval()
        try:
            texts = embed_texts(model, self.gallery.texts, precision=self.precision)
            found = retrieval(
                similarity_of(model), self._images(model), texts, self.gallery.positives, bootstrap=0
            )
        finally:
            model.train()
        del found["ci95"]
        return found

    def describe(self, model: DualEncoder) -> dict[str, Any]:
        """What the numbers are of, as `retrieve` names it; the hash of the checkpoint is not known before it is
        written."""
        return {**describe(model, self.table, self.gallery.texts), "prompts": "none"}

    def _images(self, model: DualEncoder) -> Any:
        rows = self.gallery.image_rows
        if self.store is None or self.store_rows is None:
            return embed_images(model, self.table, rows, precision=self.precision)
        store, places = self.store, self.store_rows[rows]

        def batches() -> Any:
            for start in range(0, len(places), 256):
                features = store.take(places[start : start + 256])
                moved = type(features)(*(x.to(model.device) for x in features))
                with torch.no_grad():
                    yield to_cpu(model.project_image(moved))

        return collect(batches(), len(rows))


def score_of(found: dict[str, Any], name: str) -> float:
    """The value that `train.best` names: "MR", "i2t.R@1" or "t2i.R@1"."""
    value: Any = found
    for part in name.split("."):
        value = None if value is None else value[part]
    return float("-inf") if value is None else float(value)

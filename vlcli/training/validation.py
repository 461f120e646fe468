"""The score that chooses the best checkpoint: retrieval on the validation pairs, zero-shot on their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import torch

from vlcli.errors import InputError
from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import collect, embed_texts, image_batches, similarity_of, to_cpu
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.retrieval import retrieval
from vlcli.evaluation.truth import column_labels, one_label
from vlcli.evaluation.zeroshot import zeroshot
from vlcli.models.dual import DualEncoder, ImageTokens
from vlcli.shards.pair_table import PairTable
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet
from vlcli.training.features import FeatureStore

BATCH = 256


@dataclass(frozen=True)
class Classes:
    """The rows of a table that have a label, and how the classes are called: what zero-shot is measured on.

    Wukong and ZERO choose checkpoints by ImageNet's labels, translated: `labels` is a file of such names.
    """

    rows: list[int]
    truth: list[int]
    labels: LabelSet
    prompts: PromptSet

    @classmethod
    def of(cls, table: PairTable, column: str, labels: LabelSet | None, prompts: PromptSet) -> Classes:
        """By a column that the table's frame has; without `labels` its values are the names.

        Raises InputError where no row has a label, for one that has several, and for one without a name.
        """
        values = [one_label(value) for value in table.frame[column]]
        rows = [row for row, value in enumerate(values) if value is not None and value != []]
        if not rows:
            raise InputError(f"no row has a {column}", file=table.source)
        for row in rows:
            if isinstance(values[row], list):
                raise InputError(f"row {table.ids[row]} has more than one {column}", file=table.source)
        labels = labels or column_labels(column, [values[row] for row in rows])
        return cls(rows, labels.indices(values[row] for row in rows), labels, prompts)

    @property
    def fingerprint(self) -> str:
        """sha256 over rows, classes, their names and the templates."""
        names = list(self.labels.names.values())
        return hashlib.sha256(
            orjson.dumps([self.rows, self.truth, names, self.prompts.templates])
        ).hexdigest()


class Validation:
    """Recalls of a model on the rows that have a text, and with `classes` zero-shot accuracy on theirs. Each image is
    encoded once, and not at all where a feature store has what the locked tower says of it."""

    def __init__(
        self,
        table: PairTable,
        *,
        store: FeatureStore | None,
        store_rows: np.ndarray | None,
        precision: str,
        classes: Classes | None = None,
    ) -> None:
        self.table, self.store, self.store_rows, self.precision = table, store, store_rows, precision
        self.classes = classes
        self.gallery = Gallery.of(table)
        self._place = {image: i for i, image in enumerate(self.gallery.image_ids)}
        self._told = [i for i, positives in enumerate(self.gallery.positives) if positives]

    def __call__(self, model: DualEncoder) -> dict[str, Any]:
        """{"images", "texts", "i2t", "t2i", "MR"} where there are texts, {"zeroshot": {"n", "classes", "top1", "top5",
        "mean_per_class"}} where there are classes; in percent, without intervals. The model returns to training."""
        model.eval()
        try:
            images = collect(self._batches(model), len(self.gallery.image_rows))
            found = self._retrieval(model, images) if self._told else {}
            if self.classes is not None:
                found["zeroshot"] = self._zeroshot(model, images, self.classes)
        finally:
            model.train()
        return found

    def _retrieval(self, model: DualEncoder, images: ImageTokens) -> dict[str, Any]:
        texts = embed_texts(model, self.gallery.texts, precision=self.precision)
        positives = [self.gallery.positives[i] for i in self._told]
        if len(self._told) < len(self.gallery.positives):
            images = images.rows(self._told)
        found = retrieval(similarity_of(model), images, texts, positives, bootstrap=0)
        del found["ci95"]
        return found

    def _zeroshot(self, model: DualEncoder, images: ImageTokens, classes: Classes) -> dict[str, Any]:
        places = [self._place[self.table.image_ids[row]] for row in classes.rows]
        parts = (images.rows(places[start : start + BATCH]) for start in range(0, len(places), BATCH))
        found = zeroshot(
            model,
            parts,
            classes.truth,
            classes.labels,
            classes.prompts,
            bootstrap=0,
            precision=self.precision,
        )
        return {name: found[name] for name in ("n", "classes", "top1", "top5", "mean_per_class")}

    def describe(self, model: DualEncoder) -> dict[str, Any]:
        """What recalls are of, as `retrieve` names it."""
        return {**describe(model, self.table, self.gallery.texts), "prompts": "none"}

    def results(self, model: DualEncoder, found: dict[str, Any]) -> list[dict[str, Any]]:
        """What was found as `retrieve` and `zeroshot` say it, each with what it is of; the hash of the checkpoint is
        not known before it is written."""
        lines = []
        if self._told:
            recalls = {name: value for name, value in found.items() if name != "zeroshot"}
            lines.append({**self.describe(model), **recalls})
        if self.classes is not None:
            names = list(self.classes.labels.names.values())
            said = {"labels": self.classes.labels.name, "prompts": self.classes.prompts.name}
            lines.append({**describe(model, self.table, names), **said, **found["zeroshot"]})
        return lines

    def _batches(self, model: DualEncoder) -> Iterator[ImageTokens]:
        rows = self.gallery.image_rows
        if self.store is None or self.store_rows is None:
            yield from image_batches(model, self.table, rows, precision=self.precision)
            return
        places = self.store_rows[rows]
        for start in range(0, len(places), BATCH):
            features = self.store.take(places[start : start + BATCH])
            moved = type(features)(*(x.to(model.device) for x in features))
            with torch.no_grad():
                yield to_cpu(model.project_image(moved))


def score_of(found: dict[str, Any], name: str) -> float:
    """The value that `train.best` names: "MR", "i2t.R@1", "t2i.R@1", "zeroshot.top1", …"""
    value: Any = found
    for part in name.split("."):
        value = None if value is None else value.get(part)
    return float("-inf") if value is None else float(value)

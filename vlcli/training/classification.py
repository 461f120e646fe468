"""Training of a classifier by a recipe, one stage of it: the task of `finetune --task classify` (ALIGN §5.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vlcli import __version__
from vlcli.evaluation.class_metrics import PLACES
from vlcli.evaluation.classifier import classify_images, label_set
from vlcli.evaluation.truth import Truth
from vlcli.models.checkpoint import load_classifier
from vlcli.models.classifier import Classifier, for_evaluation
from vlcli.models.dual import trainable_report
from vlcli.schemas.classification import StageRecipe
from vlcli.training.class_loader import ClassBatch, ClassLoader, ClassTable
from vlcli.training.engine import Engine, Outcome, Score
from vlcli.training.meter import Reporter


class Classification:
    """A run: `Classification(recipe, train, out, reporter, start=…).run()`. `start` is a classifier at the resolutions
    of the stage; the classes are its labels."""

    def __init__(
        self,
        recipe: StageRecipe,
        train: ClassTable,
        out: Path,
        reporter: Reporter,
        *,
        start: Classifier,
        validation: ClassTable | None = None,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.engine = Engine(recipe, out, reporter, device=device, resume=resume, force=force)
        self.recipe = recipe = self.engine.recipe  # with its precision settled
        self.train, self.validation = train, validation
        self.total = recipe.steps(len(train))
        labels = start.config.labels
        self.identity = {
            "split_hash": fingerprint(train, labels),
            "total": self.total,
            "validation": None if validation is None else fingerprint(validation, labels),
        }
        self.engine.refuse_other_data(self.identity)
        self.lineage = {"vlcli": __version__, "split_hash": train.table.split_hash, "rows": len(train)}
        self.model: Any = start
        if self.engine.resumed is not None:
            self.model = load_classifier(self.engine.resumed, "cpu", as_trained=True)
        self.model.to(self.engine.device).learn(recipe.rate)
        accelerator = self.engine.accelerator
        self.loader = ClassLoader(
            train,
            self.model.preprocess,
            recipe.data,
            seed=recipe.train.seed,
            device=self.engine.device,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        self.world, self.steps_per_epoch = accelerator.num_processes, self.loader.steps_per_epoch
        self.engine.adopt(self)

    def run(self) -> dict[str, Any]:
        """Train to the last step: see `Engine.run`."""
        return self.engine.run()

    # What the engine asks of a task

    @property
    def validates(self) -> bool:
        return self.validation is not None

    def plan(self) -> dict[str, Any]:
        config = self.model.config
        return {
            "stage": self.recipe.stage,
            "rate": self.recipe.rate,
            "rows": len(self.train),
            "classes": len(config.labels),
            "size": config.image.preprocess.size,
            "eval_size": (config.evaluation or config.image.preprocess).size,
            "parameters": trainable_report(self.model),
        }

    def batches(self, start: int, stop: int) -> Iterator[ClassBatch]:
        for batch in self.loader.batches(start, stop):
            yield batch.to(self.engine.device, self.loader.preprocess)

    def losses(self, model: nn.Module, batch: ClassBatch, step: int) -> Outcome:
        logits = model(batch.pixels).float()
        # a process's share of the mean over the global batch, of which processes may have more or less
        weigh = self.world / len(batch.pair_ids)
        loss = weigh * F.cross_entropy(logits, batch.labels, reduction="sum")
        right = (logits.detach().argmax(1) == batch.labels).sum()
        return Outcome(loss, {"train_top1": 100 * weigh * right})

    def stepped(self) -> None:
        pass

    def values(self) -> dict[str, float]:
        return {}

    def validate(self) -> Score | None:
        if self.validation is None:
            return None
        table, labels = self.validation
        names = label_set(self.model.config.labels, "the classifier's")
        truth = Truth(list(range(len(labels))), labels, names, 0)
        try:
            model = for_evaluation(self.model)
            result = classify_images(model, table, truth=truth, precision=self.recipe.train.precision)
        finally:
            self.model.train()
        found = {name: result[name] for name in ("n", "classes", *PLACES)}
        return Score(found, found[self.recipe.train.best], [result])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


def fingerprint(data: ClassTable, labels: tuple[str, ...]) -> str:
    """What a table and its classes are known by."""
    digest = hashlib.sha256(f"{data.table.split_hash}\n{labels}\n".encode())
    digest.update(data.labels.to(torch.int64).numpy().tobytes())
    return digest.hexdigest()

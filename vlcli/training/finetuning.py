"""Fine-tuning: a checkpoint goes on by another recipe, on the pairs of one task (R2D2 App. C, FILIP App. A.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.matching import auc, match_labels, row_scores
from vlcli.evaluation.metrics import percent
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.initial import fill
from vlcli.models.positions import refuse_partial_patches, resize_positions
from vlcli.models.r2d2 import Pairs, TextStates, image_states
from vlcli.objectives.matching import matching_loss
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.engine import Outcome, Score
from vlcli.training.loader import TrainingBatch
from vlcli.training.pretraining import Pretraining
from vlcli.training.processes import on_main
from vlcli.training.r2d2 import pretraining
from vlcli.training.r2d2_objective import mean_of

# What pre-training alone has: it may stay behind.
PRETRAINING_ONLY = ("ranking.mask_head.", "patch_mask")
IMAGE = "image.body."
_MARKS = (
    'train.best is "auc" in recipes of matching, and a recall in those of retrieval; those of captions have'
    " objective.caption"
)


def started(source: DualEncoder, config: DualEncoderConfig, file: Path) -> tuple[DualEncoder, list[str]]:
    """A model of `config` with the tensors of `source`, positions brought to its resolution; and the names of tensors
    that stay behind. InputError unless the others fit, UsageError for a resolution that patches do not divide."""
    model = DualEncoder(config, source.tokenizer)
    state = at_resolution(source.state_dict(), model)
    own = model.state_dict()
    behind = (*PRETRAINING_ONLY, "ranking.") if config.ranking is None else PRETRAINING_ONLY
    left = [name for name in state if name not in own and name.startswith(behind)]
    fill(model, {name: x for name, x in state.items() if name not in left}, "the recipe's model", file)
    return model, left


def at_resolution(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """`state` with the positions of its image tower brought to the resolution of `model`. UsageError for one that
    patches do not divide."""
    refuse_partial_patches(model.image.body, model.image_size, "model.image.preprocess.size")
    inside = {name.removeprefix(IMAGE): x for name, x in state.items() if name.startswith(IMAGE)}
    return state | {IMAGE + name: x for name, x in resize_positions(inside, model.image.body).items()}


class MatchingTraining(Pretraining):
    """Labelled pairs, each through both cross encoders (R2D2 App. C: FGR alone). `column` of the tables' frames says
    which pairs match. What the loss does not read does not learn."""

    def __init__(self, *arguments: Any, column: str = "label", **named: Any) -> None:
        self.column = column
        super().__init__(*arguments, **named)

    def _make_objective(self, recipe: Recipe) -> None:
        if self.model.ranking is None:
            raise UsageError("--task matching trains cross encoders, and the checkpoint is a dual encoder")
        labels = match_labels(self.table, self.column).tolist()
        self.labels = dict(zip(self.table.ids, labels, strict=True))
        objective = recipe.objective.r2d2
        assert objective is not None
        self.positive_weight = objective.matching.positive_weight
        unread = ("log_scale", "image_projection.", "text_projection.", "text_head.")
        for name, parameter in self.model.named_parameters():
            if name.startswith(unread):
                parameter.requires_grad_(False)

    def losses(self, model: nn.Module, batch: TrainingBatch, step: int) -> Outcome:
        mine = [self.labels[name] for name in batch.pair_ids[batch.local]]
        labels = torch.tensor(mine, dtype=torch.long, device=batch.keys.device)
        text_logits, image_logits = model(through=lambda student: self._logits(student, batch))
        loss = mean_of(matching_loss(text_logits, image_logits, labels, positive_weight=self.positive_weight))
        return Outcome(loss, {"matching_loss": loss.detach()})

    def _logits(self, model: DualEncoder, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        features = batch.features
        if features is None:
            assert batch.pixels is not None
            features = model.image_features(batch.pixels)
        assert model.ranking is not None
        rows = torch.arange(len(batch.ids), device=batch.keys.device)
        ranked = model.ranking(
            TextStates(model.text_states(batch.ids, batch.mask, batch.keys), batch.mask),
            image_states(features),
            Pairs(rows, rows),
            text_keys=batch.keys,
            image_keys=batch.keys,
            keys=batch.keys,
        )
        return ranked.text_logits, ranked.image_logits

    def values(self) -> dict[str, float]:
        return {}

    def validate(self) -> Score | None:
        if self.validation is None:
            return None
        table = self.validation.table
        self.model.eval()
        try:
            scores = row_scores(self.model, table, precision=self.recipe.train.precision)
        finally:
            self.model.train()
        labels = match_labels(table, self.column)
        found = {"n": len(scores), "positives": int(labels.sum()), "auc": percent(auc(scores, labels))}
        described = {**self.validation.describe(self.model), "task": "matching", **found}
        return Score(found, found["auc"], [described])


def task_of(name: str, recipe: Recipe) -> type[Pretraining]:
    """What trains for `--task`. UsageError for a recipe of another task."""
    own = "matching" if recipe.train.best == "auc" else "retrieval"
    if recipe.objective.caption is not None:
        own = "caption"
    name = "retrieval" if name == "t2i" else name  # whose first stage learns as that does
    if name != own:
        raise UsageError(f"recipe {recipe.name} is not of --task {name}", remedy=_MARKS)
    if name == "caption":
        from vlcli.training.captioning import CaptionTraining  # which has more to import

        return CaptionTraining
    if name != "matching":
        return pretraining(recipe)
    if recipe.objective.r2d2 is None:
        raise UsageError(f"recipe {recipe.name}: --task matching wants objective.r2d2")
    return MatchingTraining


def fine_tune(run: Any, before: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train; `before` is told the score of the checkpoint as it came, before the first step."""
    if run.engine.resumed is None and run.validates:
        score = on_main(run.validate)
        if run.engine.main and score is not None:
            before(score.found)
    return run.run()


def refuse_one_sided(table: PairTable, column: str) -> None:
    """InputError for a validation of matches alone, or of mismatches alone: it has no AUC."""
    labels = match_labels(table, column)
    if not len(labels) or labels.min() == labels.max():
        raise InputError(f"every {column} is the same: there is nothing to tell apart", file=table.source)

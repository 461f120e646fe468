"""Training by R2D2's objective: the task of `pretrain` for recipes with an `objective.r2d2`."""

from __future__ import annotations

from typing import Any

from torch import nn

from vlcli.errors import UsageError
from vlcli.objectives.contrastive import total_loss
from vlcli.schemas.pretraining import Recipe
from vlcli.training.engine import Outcome
from vlcli.training.loader import TrainingBatch
from vlcli.training.pretraining import Pretraining
from vlcli.training.r2d2_objective import R2D2Objective


class R2D2Pretraining(Pretraining):
    """A run: `R2D2Pretraining(recipe, train, ...).run()`. A checkpoint carries queue, centres and momentum copies."""

    def _make_objective(self, recipe: Recipe) -> None:
        assert recipe.objective.r2d2 is not None
        if self.engine.sharding is not None:
            raise UsageError(
                "the momentum copies of objective.r2d2 are not shared out among processes",
                remedy="launch without --use_fsdp",
            )
        self.objective = R2D2Objective(self.model, recipe.objective.r2d2, seed=recipe.train.seed)

    def losses(self, model: nn.Module, batch: TrainingBatch, step: int) -> Outcome:
        parts = self.objective(model, batch, step)
        self.scale = self.model.scale().detach()
        return Outcome(total_loss(parts), {name: loss.detach() for name, loss in parts.items()})

    def stepped(self) -> None:
        super().stepped()
        self.objective.stepped()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        mine = super().state_dict()
        self.objective.load_state_dict({name: value for name, value in state.items() if name not in mine})


def pretraining(recipe: Recipe) -> type[Pretraining]:
    """The task that trains by a recipe's objective. UsageError for one of captions."""
    if recipe.objective.caption is not None:
        raise UsageError(
            f"recipe {recipe.name} writes captions",
            remedy="vlcli finetune RUN --task caption --recipe takes it",
        )
    return Pretraining if recipe.objective.r2d2 is None else R2D2Pretraining

"""What a run would be, told before it is: its steps, its memory, its files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from vlcli.cache import default_directory
from vlcli.errors import UsageError
from vlcli.models.cost import Cost, cost, on_meta
from vlcli.models.dual import DualEncoder
from vlcli.models.precision import settled
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.effects import keys_of, without_effect
from vlcli.training.features import bytes_of
from vlcli.training.order import per_epoch
from vlcli.training.trackers import chosen
from vlcli.training.validation import Classes


class Plan:
    """Of a recipe on tables of pairs; nothing is computed, and no picture is opened."""

    def __init__(
        self,
        recipe: Recipe,
        pairs: PairTable,
        out: Path,
        *,
        validation: PairTable | None = None,
        classes: Classes | None = None,
        device: torch.device,
        processes: int = 1,
        overrides: Collection[str] = (),
        init: Mapping[str, str] | None = None,
        resumed: bool = False,
    ) -> None:
        """Raises UsageError for what the run would be refused for: a score that nothing is measured for, a tracker that
        is not installed."""
        self.recipe, self.pairs, self.out = recipe, pairs, out
        self.validation, self.processes = validation, processes
        self.precision = settled(recipe.train.precision, device)
        self.trackers = chosen(recipe.train.trackers)
        _refuse_unmeasured(recipe, validation, classes)
        self.steps = recipe.steps(len(pairs))
        self.model: DualEncoder = on_meta(recipe.model)
        tables = [pairs] if validation is None else [pairs, validation]
        self.images = [table.images for table in tables]
        self.feature_bytes = sum(self.images) * bytes_of(self.model, self.precision)
        self.cacheable = recipe.caches_features and self.model.image_locked
        self.cached = self.cacheable and self.feature_bytes <= recipe.data.cache_gib * 2**30
        self.warnings = without_effect(
            recipe,
            pairs,
            said=keys_of(overrides),
            cached=self.cached,
            validates=validation is not None,
            resumed=resumed,
            init=init,
        )

    def as_dict(self) -> dict[str, Any]:
        """Bytes are of one process, but for those on disk; they are estimates: what the libraries take for themselves,
        and what a kernel works in, is in none of them."""
        recipe, data, train = self.recipe, self.recipe.data, self.recipe.train
        costs = cost(self.model, batch=data.batch_size, precision=self.precision)
        share = data.batch_size // self.processes
        return {
            "recipe": recipe.name,
            "pairs": len(self.pairs),
            "images": self.images[0],
            "best": train.best,
            "validation_pairs": 0 if self.validation is None else len(self.validation),
            "steps": self.steps,
            "steps_per_epoch": data.steps_per_epoch(len(self.pairs)),
            "mixture": per_epoch(self.pairs.shares, data),
            "batch_size": data.batch_size,
            "processes": self.processes,
            "pairs_a_process": share,
            "precision": self.precision,
            "peak_lr": recipe.peak_lr,
            "chance_loss": recipe.chance_loss,
            "parameters": costs.parts,
            "memory": {
                "state": costs.state + _average(recipe, costs),
                "activations": costs.activations * min(share, train.chunk or share),
            },
            "feature_cache": self._features(),
            "checkpoints": {
                "every": train.save_every,
                "kept": train.keep,
                "bytes": 4 * (costs.parameters + 2 * costs.trainable) + _average(recipe, costs),
            },
            "files": self._files(),
            "trackers": list(self.trackers),
            "warnings": self.warnings,
        }

    def _features(self) -> dict[str, Any] | None:
        if not self.cacheable:
            return None
        cache = self.recipe.data.cache
        return {
            "folder": str(default_directory("features") if cache == "auto" else Path(cache)),
            "bytes": self.feature_bytes,
            "within": self.cached,
        }

    def _files(self) -> list[str]:
        names = ["recipe.toml", "metrics.jsonl", "checkpoints", "last", "best", "curves.png", *self.trackers]
        return [str(self.out / name) for name in names]


def _refuse_unmeasured(recipe: Recipe, validation: PairTable | None, classes: Classes | None) -> None:
    best = recipe.train.best
    if validation is None:
        return
    if best.startswith("zeroshot.") and classes is None:
        raise UsageError(
            f"train.best = {best}: nothing says what the classes are",
            remedy="--val-label-column NAME, and --val-labels FILE for their names",
        )
    if not best.startswith("zeroshot.") and not any(validation.texts):
        raise UsageError(
            f"train.best = {best}: --val {validation.source} has no text",
            remedy="--set train.best=zeroshot.top1 chooses by labels",
        )


def _average(recipe: Recipe, costs: Cost) -> int:
    """Bytes of the weights of a moving average beside those that are trained."""
    return 4 * costs.trainable if recipe.train.ema else 0

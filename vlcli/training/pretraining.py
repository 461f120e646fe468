"""Contrastive training of a dual encoder by a recipe: the task of `pretrain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlcli import __version__
from vlcli.cache import default_directory
from vlcli.errors import UsageError
from vlcli.models.checkpoint import load
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.models.image_tower import ImageFeatures
from vlcli.models.initial import find_weights, tokenizer_for
from vlcli.models.initialise import initialise
from vlcli.models.recompute import recompute_layers, statistics
from vlcli.objectives.contrastive import collisions, total_loss
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.engine import Engine, Outcome, Score
from vlcli.training.features import FeatureStore
from vlcli.training.gradient_cache import Encoded, chunked
from vlcli.training.loader import Loader, TrainingBatch
from vlcli.training.meter import Reporter
from vlcli.training.objective import Objective
from vlcli.training.order import per_epoch
from vlcli.training.processes import on_main
from vlcli.training.validation import Classes, Validation, score_of


class Pretraining:
    """A run: `Pretraining(recipe, train, ...).run()`. `train` and `validation` are tables of pairs, `classes` what the
    labels of validation's rows are called; `start` is a model of the recipe's architecture to go on from, without which
    its towers get their initial weights."""

    def __init__(
        self,
        recipe: Recipe,
        train: PairTable,
        out: Path,
        reporter: Reporter,
        *,
        validation: PairTable | None = None,
        classes: Classes | None = None,
        init_image: str | None = None,
        init_text: str | None = None,
        start: Any = None,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
        max_bad: str = "0",
    ) -> None:
        self.engine = Engine(recipe, out, reporter, device=device, resume=resume, force=force)
        self.recipe = recipe = self.engine.recipe  # with its precision settled
        self.table, self.classes, self.reporter = train, classes, reporter
        self.total = recipe.steps(len(train))
        image_weights, text_weights = None, None
        if self.engine.resumed is None and start is None:
            image_weights = find_weights(recipe.model.image, init_image)
            text_weights = find_weights(recipe.model.text, init_text)
        self.identity = {
            "split_hash": train.split_hash,
            "total": self.total,
            "mixture": [[share.source, share.weight] for share in train.shares],
            "validation": None if validation is None else validation.split_hash,
            "classes": None if classes is None else classes.fingerprint,
        }
        self.engine.refuse_other_data(self.identity)
        self.lineage = {"vlcli": __version__, "split_hash": train.split_hash, "pairs": len(train)}
        self.model: Any  # a DualEncoder, or what a task makes of one
        if self.engine.resumed is not None:
            self.model = self._load(self.engine.resumed).train()
        elif start is not None:
            self.model = start.train()
        else:
            self.model = DualEncoder(recipe.model, tokenizer_for(recipe.model.text, text_weights))
            initialise(self.model, image_weights, text_weights)
        self.model.to(self.engine.device)
        self._make_objective(recipe)
        self._load_data(validation, max_bad)
        self._save_memory()
        self.engine.adopt(self)

    def _load(self, place: Path) -> Any:
        """The model of a checkpoint of this run."""
        return load(place, "cpu")

    def _make_objective(self, recipe: Recipe) -> None:
        self.objective: Any = Objective(self.model, recipe.objective, seed=recipe.train.seed)

    def _load_data(self, validation: PairTable | None, max_bad: str) -> None:
        recipe = self.recipe
        # First, because it refuses batches that cannot be: encoding all images may take hours.
        self.loader = Loader(
            self.table,
            self.model,
            recipe.data,
            seed=recipe.train.seed,
            rank=self.engine.accelerator.process_index,
            world=self.engine.accelerator.num_processes,
            max_bad=max_bad,
            warn=self.engine.warn,
        )
        self.steps_per_epoch = self.loader.steps_per_epoch
        store, val_rows = None, None
        if recipe.caches_features and self.model.image_locked:
            cache = recipe.data.cache
            store = FeatureStore(
                self.model,
                default_directory("features") if cache == "auto" else Path(cache),
                precision=recipe.train.precision,
            )
            images = self.table.images + (validation.images if validation else 0)
            need = store.missing_bytes(images)
            if need > recipe.data.cache_gib * 2**30:
                self.engine.warn(
                    f"features of {images} images would take {need / 2**30:.1f} GiB, more than data.cache_gib ="
                    f" {recipe.data.cache_gib:g}: every image is encoded at every step instead"
                )
                store = None
        if store is not None:
            self.model.eval()
            causes: dict[int, str] = {}
            self.loader.read_features(store, self._encode(store, self.table, causes), causes)
            val_rows = self._encode(store, validation, None) if validation is not None else None
            self.model.train()
        self.store = store
        self.validation: Any = None if validation is None else self._judge(validation, store, val_rows)

    def _judge(self, table: PairTable, store: FeatureStore | None, rows: np.ndarray | None) -> Any:
        """What judges the model on the rows of `table`, which are `rows` of the store."""
        precision = self.recipe.train.precision
        return Validation(table, store=store, store_rows=rows, precision=precision, classes=self.classes)

    def _save_memory(self) -> None:
        """What `train.chunk` and `train.checkpointing` ask for; says where one of them does nothing."""
        train = self.recipe.train
        share = -(-self.recipe.data.batch_size // self.engine.accelerator.num_processes)
        if train.chunk >= share:
            self.engine.warn(
                f"train.chunk = {train.chunk} has no effect: a process has {share} pairs of each batch"
            )
        elif train.chunk and statistics(self.model):
            self.engine.warn(
                f"train.chunk = {train.chunk}: batch normalisation sees chunks, not a process's {share} pairs"
            )
        for side in train.checkpointing:
            if not recompute_layers(getattr(self.model, side)):
                raise UsageError(
                    f'train.checkpointing = ["{side}"]: the {side} tower has no layer that learns',
                    remedy=f"leave {side} out",
                )

    def _encode(self, store: FeatureStore, table: PairTable, causes: dict[int, str] | None) -> np.ndarray:
        """The store's row of each row of the table; rank 0 encodes, and the others where they do not see its disk.
        `causes` learns which images cannot be had; None: there must be none."""
        bad = None if causes is None else causes.__setitem__
        rows: list[np.ndarray] = []
        on_main(lambda: rows.append(store.add(table, progress=self.reporter.features, bad=bad)))
        return rows[0] if rows else store.add(table, bad=bad)

    def run(self) -> dict[str, Any]:
        """Train to the last step: see `Engine.run`."""
        return self.engine.run()

    # What the engine asks of a task

    @property
    def validates(self) -> bool:
        return self.validation is not None

    def plan(self) -> dict[str, Any]:
        images = self.table.images
        features = None
        if self.store is not None:
            features = {"folder": str(self.store.folder), "bytes": self.store.missing_bytes(images)}
        return {
            "pairs": len(self.table),
            "images": images,
            "mixture": per_epoch(self.table.shares, self.recipe.data),
            "chance_loss": self.recipe.chance_loss,
            "parameters": trainable_report(self.model),
            "feature_cache": features,
        }

    def batches(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        for batch in self.loader.batches(start, stop):
            yield batch.to(self.engine.device, self.model.preprocess)

    def losses(self, model: nn.Module, batch: TrainingBatch, step: int) -> Outcome:
        def encode(rows: slice) -> Encoded:
            return Encoded(*self._forward(model, batch, rows))

        def compare(found: Encoded) -> Outcome:
            self.scale = found.scale.detach()
            parts = self.objective(*found, batch.codes, batch.local, step)
            collided = torch.tensor(float(collisions(batch.codes)), device=found.scale.device)
            pairs = len(batch.pair_ids)
            shown = {
                "i2t_loss": parts["i2t"],
                "t2i_loss": parts["t2i"],
                "collisions": collided,
                "collision_share": collided / (pairs * (pairs - 1)),
            }
            return Outcome(total_loss(parts), shown)

        chunk = self.recipe.train.chunk
        if not chunk:
            return compare(encode(slice(None)))
        return chunked(self.engine.accelerator, model, len(batch.ids), chunk, encode, compare)

    def _forward(self, model: nn.Module, batch: TrainingBatch, rows: slice) -> Any:
        features = None if batch.features is None else ImageFeatures(*(x[rows] for x in batch.features))
        pixels = None if batch.pixels is None else batch.pixels[rows]
        return model(
            batch.ids[rows], batch.mask[rows], pixels=pixels, features=features, keys=batch.keys[rows]
        )

    def stepped(self) -> None:
        self.model.bound_scale_()

    def values(self) -> dict[str, float]:
        temperature = {"temperature": 1 / float(self.scale)}
        contrastive = self.recipe.objective.r2d2 is None
        return temperature | ({"chance_loss": self.recipe.chance_loss} if contrastive else {})

    def validate(self) -> Score | None:
        if self.validation is None:
            return None
        found = self.validation(self.model)
        value = score_of(found, self.recipe.train.best)
        return Score(found, value, self.validation.results(self.model, found))

    def state_dict(self) -> dict[str, Any]:
        return {"bad": self.loader.bad.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.bad.load_state_dict(state.get("bad", {}))

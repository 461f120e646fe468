"""The training loop: one for every system, on accelerate."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from vlcli import __version__
from vlcli.errors import Terminated, UsageError
from vlcli.models.checkpoint import load, resolve_device
from vlcli.models.dropout import pair_key
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.models.initial import find_weights, tokenizer_for
from vlcli.models.initialise import initialise
from vlcli.models.precision import settled
from vlcli.objectives.contrastive import total_loss
from vlcli.recipes import Recipe, to_toml
from vlcli.shards.pairs import PairTable
from vlcli.training.features import FeatureStore, default_directory
from vlcli.training.finite import stop_unless_finite
from vlcli.training.loader import Loader, TrainingBatch
from vlcli.training.meter import Meter, Reporter
from vlcli.training.objective import Objective
from vlcli.training.optimizers import build_optimizer, parameter_groups
from vlcli.training.processes import anywhere, mean, on_main
from vlcli.training.run_directory import clear, point, prune, refuse_occupied, rewind, step_name
from vlcli.training.schedules import learning_rate
from vlcli.training.state import newest_state, read_state, refuse_another_recipe, save_state
from vlcli.training.trackers import Trackers
from vlcli.training.validation import Validation, score_of

# The others wait while rank 0 fills the feature cache or validates; the default of ten minutes would end the run.
PATIENCE = timedelta(hours=24)


class Pretraining:
    """A run: `Pretraining(recipe, train, ...).run()`. `train` and `validation` are tables of pairs."""

    def __init__(
        self,
        recipe: Recipe,
        train: PairTable,
        out: Path,
        reporter: Reporter,
        *,
        validation: PairTable | None = None,
        init_image: str | None = None,
        init_text: str | None = None,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
    ) -> None:
        chosen = resolve_device(device)
        precision = settled(recipe.train.precision, chosen)
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})
        self.recipe, self.table, self.out, self.reporter = recipe, train, out, reporter
        if chosen.index is not None:
            torch.cuda.set_device(chosen)
        AcceleratorState._reset_state()  # of an earlier run in this process, which may have had another precision
        self.accelerator = Accelerator(
            mixed_precision="bf16" if recipe.train.precision == "bf16" else "no",
            cpu=chosen.type == "cpu",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.main = self.accelerator.is_main_process
        self.state: dict[str, Any] | None = None
        self.best_step: int | None = None
        resumed = self._look_at_directory(resume, force)
        image_weights, text_weights = None, None
        if resumed is None:
            image_weights = find_weights(recipe.model.image, init_image)
            text_weights = find_weights(recipe.model.text, init_text)
        self.total = recipe.steps(len(train))
        self.identity = {
            "split_hash": train.split_hash,
            "total": self.total,
            "validation": None if validation is None else validation.split_hash,
        }
        self._refuse_other_data()
        set_seed(recipe.train.seed)
        if resumed is not None:
            self.model = load(resumed, "cpu").train()
        else:
            self.model = DualEncoder(recipe.model, tokenizer_for(recipe.model.text, text_weights))
            initialise(self.model, image_weights, text_weights)
        self.model.to(self.accelerator.device)
        self.objective = Objective(self.model, recipe.objective, seed=recipe.train.seed)
        groups, self.decay_report = parameter_groups(self.model, recipe.optimizer)
        self.optimizer = build_optimizer(groups, recipe.optimizer)
        self._load_data(validation)
        self.lineage = {
            "vlcli": __version__,
            "split_hash": train.split_hash,
            "pairs": len(train),
        }
        self._resume_state()
        self.stop_signal = False
        if not on_main(self._prepare_directory):
            self._warn("the best checkpoint is gone; the next validation chooses anew")
            self.best, self.best_step = float("-inf"), None

    def _look_at_directory(self, resume: bool, force: bool) -> Path | None:
        """Refuse a directory in use, or find the checkpoint to go on from. Nothing is changed yet."""

        def look() -> Path | None:
            refuse_occupied(self.out, resume=resume, force=force)
            found = newest_state(self.out, self.reporter.warn) if resume else None
            if found is None:
                return None
            place, self.state = found
            refuse_another_recipe(place, self.recipe.model_dump(mode="json"))
            return place

        place = on_main(look)
        if place is not None and not self.main:
            self.state = read_state(place)
        return place

    def _refuse_other_data(self) -> None:
        """UsageError unless a run that goes on has the pairs it had, and chooses its best by the same ones."""
        before = self.state or {}
        for name, mine in self.identity.items():
            if name in before and before[name] != mine:
                raise UsageError(
                    f"--resume: {name} was {before[name]}, is {mine}",
                    remedy="resume with the same data and recipe",
                )

    def _prepare_directory(self) -> bool:
        """Clear or rewind the run's directory: only now, when everything that could be refused has been read.
        False when the best checkpoint of a run that goes on is gone."""
        checkpoints = self.out / "checkpoints"
        if self.state is not None:
            found = rewind(self.out, checkpoints / step_name(self.step), self.best_step)
            prune(self.out, self.recipe.train.keep)  # which the stopped process may not have come to
            return found
        clear(self.out)
        checkpoints.mkdir(parents=True, exist_ok=True)
        (self.out / "recipe.toml").write_text(to_toml(self.recipe), encoding="utf-8")
        return True

    def _load_data(self, validation: PairTable | None) -> None:
        recipe = self.recipe
        # First, because it refuses batches that cannot be: encoding all images may take hours.
        self.loader = Loader(
            self.table,
            self.model,
            recipe.data,
            seed=recipe.train.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        store, val_rows = None, None
        if recipe.caches_features and self.model.image_locked:
            cache = recipe.data.cache
            store = FeatureStore(
                self.model,
                default_directory() if cache == "auto" else Path(cache),
                precision=recipe.train.precision,
            )
            images = len(set(self.table.image_ids)) + (len(set(validation.image_ids)) if validation else 0)
            need = store.missing_bytes(images)
            if need > recipe.data.cache_gib * 2**30:
                self._warn(
                    f"features of {images} images would take {need / 2**30:.1f} GiB, more than data.cache_gib ="
                    f" {recipe.data.cache_gib:g}: every image is encoded at every step instead"
                )
                store = None
        if store is not None:
            self.model.eval()
            self.loader.read_features(store, self._encode(store, self.table))
            val_rows = self._encode(store, validation) if validation is not None else None
            self.model.train()
        self.store = store
        self.validation = None
        if validation is not None:
            self.validation = Validation(
                validation, store=store, store_rows=val_rows, precision=recipe.train.precision
            )

    def _encode(self, store: FeatureStore, table: PairTable) -> np.ndarray:
        """The store's row of each row of the table; rank 0 encodes, and the others where they do not see its disk."""
        rows: list[np.ndarray] = []
        on_main(lambda: rows.append(store.add(table, progress=self.reporter.features)))
        return rows[0] if rows else store.add(table)

    def _resume_state(self) -> None:
        self.step, self.best = 0, float("-inf")
        self.results: list[dict[str, Any]] = []  # what was measured on the weights as they are
        self.meter = Meter()
        if self.state is None:
            return
        self.optimizer.load_state_dict(self.state["optimizer"])
        self.step, self.best = self.state["step"], self.state["best"]
        self.best_step = self.state["best_step"]
        self.meter = Meter(**self.state["meter"], carried=self.state["meter"]["steps"])

    def _warn(self, text: str) -> None:
        if self.main:
            self.reporter.warn(text)

    def plan(self) -> dict[str, Any]:
        """What is about to happen, for the reporter."""
        recipe = self.recipe
        features = None
        if self.store is not None:
            features = {
                "folder": str(self.store.folder),
                "bytes": self.store.missing_bytes(len(set(self.table.image_ids))),
            }
        return {
            "recipe": recipe.name,
            "pairs": len(self.table),
            "images": len(set(self.table.image_ids)),
            "steps": self.total,
            "steps_per_epoch": self.loader.steps_per_epoch,
            "batch_size": recipe.data.batch_size,
            "processes": self.accelerator.num_processes,
            "peak_lr": recipe.peak_lr,
            "chance_loss": recipe.chance_loss,
            "parameters": trainable_report(self.model),
            "decay": self.decay_report,
            "feature_cache": features,
            "resumed_at": self.step if self.state is not None else None,
        }

    def run(self) -> dict[str, Any]:
        """Train to the last step; returns {"steps", "best", "best_checkpoint", "last_checkpoint"}."""
        recipe, train = self.recipe, self.recipe.train
        if self.main:
            self.reporter.plan(self.plan())
        model, optimizer = self.accelerator.prepare(self.model, self.optimizer)
        trackers = Trackers(self.out, resume_step=self.step if self.state else None) if self.main else None
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        batches = self.loader.batches(self.step, self.total)
        self.meter.started = time.perf_counter()
        try:
            with self._defer_sigterm():
                while self.step < self.total:
                    meter = self.meter
                    waiting = time.perf_counter()
                    batch = next(batches).to(self.accelerator.device)
                    meter.waited += time.perf_counter() - waiting
                    rate = learning_rate(self.step, self.total, recipe.peak_lr, recipe.schedule)
                    for group in optimizer.param_groups:
                        group["lr"] = rate * group.get("rate", 1.0)
                    optimizer.zero_grad(set_to_none=True)
                    # Our dropout has the pairs' keys; this is for a tower that brings its own.
                    torch.manual_seed(pair_key(train.seed, self.step, self.accelerator.process_index))
                    parts, scale = self._objective(model, batch)
                    loss = total_loss(parts)
                    means = mean(torch.stack([loss.detach(), parts["i2t"], parts["t2i"]]))
                    stop_unless_finite(means[0], batch.pair_ids, self.out, self.step + 1)
                    self.accelerator.backward(loss)
                    norm = torch.nn.utils.clip_grad_norm_(
                        parameters, recipe.optimizer.clip_grad_norm or math.inf
                    )
                    stop_unless_finite(norm, batch.pair_ids, self.out, self.step + 1)
                    optimizer.step()
                    self.model.bound_scale_()
                    self.step += 1
                    self.results = []
                    meter.steps += 1
                    meter.loss += means[0].item()
                    meter.i2t += means[1].item()
                    meter.t2i += means[2].item()
                    meter.grad_norm += norm.item()
                    if self.step % train.log_every == 0 or self.step == self.total:
                        self.meter = Meter()
                    if trackers is not None and self.meter is not meter:
                        values = {
                            **meter.values(recipe.data.batch_size),
                            "lr": rate,
                            "temperature": 1 / float(scale),
                            "epoch": self.step / self.loader.steps_per_epoch,
                        }
                        trackers.log(self.step, values)
                        self.reporter.step(self.step, self.total, values)
                    self._milestones(trackers)
        finally:
            if trackers is not None:
                trackers.close()
        self.accelerator.wait_for_everyone()
        return {
            "steps": self.step,
            "best": None if math.isinf(self.best) else self.best,
            "best_checkpoint": os.path.realpath(self.out / "best") if (self.out / "best").exists() else None,
            "last_checkpoint": os.path.realpath(self.out / "last"),
        }

    def _objective(self, model: Any, batch: TrainingBatch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        image, text, scale = model(
            batch.ids, batch.mask, pixels=batch.pixels, features=batch.features, keys=batch.keys
        )
        parts = self.objective(image, text, scale, batch.codes, batch.local, self.step)
        return parts, scale.detach()

    def _milestones(self, trackers: Trackers | None) -> None:
        """Validate, save, prune: at their intervals, at the end, and when a signal asked to stop."""
        train, done = self.recipe.train, self.step == self.total
        due = bool(train.evaluate_every) and self.step % train.evaluate_every == 0
        improved = False
        if self.validation is not None and (due or done):
            score = on_main(lambda: self._validate(trackers))
            improved = score > self.best
            self.best = max(self.best, score)
        if improved or (self.validation is None and done):
            self.best_step = self.step
        scheduled = bool(train.save_every) and self.step % train.save_every == 0
        stopping = anywhere(self.stop_signal, self.accelerator.device)
        if scheduled or done or improved or stopping:
            on_main(lambda: self._save(trackers))
        if stopping and not done:
            raise Terminated

    def _validate(self, trackers: Trackers | None) -> float:
        assert trackers is not None
        assert self.validation is not None
        found = self.validation(self.model)
        score = score_of(found, self.recipe.train.best)
        trackers.log(self.step, {"val": found})
        self.results = [{**self.validation.describe(self.model), **found}]
        self.reporter.validated(self.step, found, score > self.best)
        return score

    def _save(self, trackers: Trackers | None) -> None:
        assert trackers is not None
        trackers.flush()  # a run that goes on from here does not say again what came before
        place = save_state(
            self.out,
            self.step,
            self.model,
            self.optimizer,
            recipe=self.recipe.model_dump(mode="json"),
            lineage=self.lineage,
            extra={
                "best": self.best,
                "best_step": self.best_step,
                **self.identity,
                "meter": self.meter.sums(),
            },
            results=self.results,
        )
        if self.best_step == self.step:
            point(self.out / "best", place)
        prune(self.out, self.recipe.train.keep)
        self.reporter.saved(place)

    @contextmanager
    def _defer_sigterm(self) -> Iterator[None]:
        """SIGTERM (a cluster's warning) waits for the end of the step, is answered by a checkpoint, then exits 143."""

        def ask_to_stop(*_: Any) -> None:
            self.stop_signal = True

        before = signal.signal(signal.SIGTERM, ask_to_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

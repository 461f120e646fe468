"""The training loop: one for every system, on accelerate."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from vlcli import __version__
from vlcli.errors import Terminated, UsageError, VlcliError
from vlcli.models.checkpoint import load, resolve_device
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.models.initial import find_image_weights, load_image_tower
from vlcli.objectives.contrastive import contrastive_loss, positive_targets, total_loss
from vlcli.recipes import Recipe, to_toml
from vlcli.shards.pairs import PairTable
from vlcli.training.features import FeatureStore, default_directory
from vlcli.training.gather import gather_images, gather_texts
from vlcli.training.loader import Loader, TrainingBatch
from vlcli.training.optimizers import build_optimizer, parameter_groups
from vlcli.training.schedules import learning_rate
from vlcli.training.state import newest_state, point, prune, restore_rng, save_state
from vlcli.training.trackers import Trackers
from vlcli.training.validation import Validation, score_of


class Reporter(Protocol):
    """What a command shows of a run. Called on the main process only."""

    def plan(self, plan: dict[str, Any]) -> None: ...
    def features(self, done: int, total: int) -> None: ...
    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...
    def validated(self, step: int, found: dict[str, Any], best: bool) -> None: ...
    def saved(self, path: Path) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass
class Meter:
    """Sums between two log lines."""

    loss: float = 0.0
    i2t: float = 0.0
    t2i: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def values(self, batch_size: int) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.started, 1e-9)
        n = max(self.steps, 1)
        return {
            "loss": self.loss / n,
            "i2t_loss": self.i2t / n,
            "t2i_loss": self.t2i / n,
            "grad_norm": self.grad_norm / n,
            "pairs_per_second": self.steps * batch_size / seconds,
            "data_wait": self.waited / seconds,
        }


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
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.recipe, self.table, self.out, self.reporter = recipe, train, out, reporter
        on_cpu = resolve_device(device).type == "cpu"
        self.accelerator = Accelerator(
            mixed_precision="bf16" if recipe.train.precision == "bf16" else "no", cpu=on_cpu
        )
        self.main = self.accelerator.is_main_process
        self.state: dict[str, Any] | None = None
        weights = None if resume else find_image_weights(recipe.model.image, init_image)
        resumed = self._prepare_directory(resume, force)
        set_seed(recipe.train.seed)
        if resumed is not None:
            self.model = load(resumed, "cpu").train()
        else:
            self.model = DualEncoder(recipe.model)
            if weights is not None:
                load_image_tower(self.model.image, weights)
        self.model.to(self.accelerator.device)
        groups, self.decay_report = parameter_groups(self.model, recipe.optimizer)
        self.optimizer = build_optimizer(groups, recipe.optimizer)
        self._load_data(validation)
        self.lineage = {
            "vlcli": __version__,
            "data": train.source if len(train.source) < 200 else train.source[:200],
            "split_hash": train.split_hash,
            "pairs": len(train),
        }
        self._resume_state()
        self.stop_signal = False

    def _prepare_directory(self, resume: bool, force: bool) -> Path | None:
        """Make the run's directory, or find the checkpoint to go on from."""
        checkpoints = self.out / "checkpoints"
        if resume:
            place, self.state = newest_state(self.out, self.reporter.warn)
            if self.main:  # newer ones are damaged; the run will write these steps again
                for damaged in checkpoints.glob("step-*"):
                    if damaged.name > place.name:
                        shutil.rmtree(damaged)
            self.accelerator.wait_for_everyone()
            return place
        if self.main:
            if self.out.exists() and any(self.out.iterdir()):
                if not force:
                    raise UsageError(
                        f"{self.out} is not empty", remedy="--resume goes on, --force starts anew"
                    )
                for name in ("checkpoints", "tensorboard"):
                    shutil.rmtree(self.out / name, ignore_errors=True)
                for name in ("best", "last", "metrics.jsonl", "recipe.toml"):
                    (self.out / name).unlink(missing_ok=True)
            checkpoints.mkdir(parents=True, exist_ok=True)
            (self.out / "recipe.toml").write_text(to_toml(self.recipe), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        return None

    def _load_data(self, validation: PairTable | None) -> None:
        store, rows, val_rows = None, None, None
        recipe = self.recipe
        if recipe.caches_features:
            cache = recipe.data.cache
            store = FeatureStore(
                self.model,
                default_directory() if cache == "auto" else Path(cache),
                precision=recipe.train.precision,
            )
            images = len(set(self.table.image_ids)) + (len(set(validation.image_ids)) if validation else 0)
            need = store.missing_bytes(images)
            if need > recipe.data.cache_gib * 2**30:
                self.reporter.warn(
                    f"features of {images} images would take {need / 2**30:.1f} GiB, more than data.cache_gib ="
                    f" {recipe.data.cache_gib:g}: every image is encoded at every step instead"
                )
                store = None
        if store is not None:
            self.model.eval()
            with self.accelerator.main_process_first():
                progress = self.reporter.features if self.main else None
                rows = store.add(self.table, progress=progress)
                val_rows = store.add(validation, progress=progress) if validation is not None else None
            self.model.train()
        self.store = store
        self.loader = Loader(
            self.table,
            self.model,
            recipe.data,
            seed=recipe.train.seed,
            store=store,
            store_rows=rows,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        self.validation = None
        if validation is not None:
            self.validation = Validation(
                validation, store=store, store_rows=val_rows, precision=recipe.train.precision
            )
        self.total = recipe.schedule.steps or recipe.schedule.epochs * self.loader.steps_per_epoch

    def _resume_state(self) -> None:
        self.step, self.best = 0, float("-inf")
        if self.state is None:
            return
        for name, mine in (("split_hash", self.lineage["split_hash"]), ("total", self.total)):
            if self.state[name] != mine:
                raise UsageError(
                    f"--resume: {name} was {self.state[name]}, is {mine}",
                    remedy="resume with the same data and recipe",
                )
        self.optimizer.load_state_dict(self.state["optimizer"])
        self.step, self.best = self.state["step"], self.state["best"]

    def plan(self) -> dict[str, Any]:
        """What is about to happen, for people and for --dry-run."""
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
            "chance_loss": math.log(recipe.data.batch_size),
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
        if self.state is not None:
            restore_rng(self.state)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        meter, batches = Meter(), self.loader.batches(self.step, self.total)
        try:
            with self._defer_sigterm():
                while self.step < self.total:
                    waiting = time.perf_counter()
                    batch = next(batches).to(self.accelerator.device)
                    meter.waited += time.perf_counter() - waiting
                    rate = learning_rate(self.step, self.total, recipe.peak_lr, recipe.schedule)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    optimizer.zero_grad(set_to_none=True)
                    parts, scale = self._objective(model, batch)
                    loss = total_loss(parts)
                    self._guard(loss, batch)
                    self.accelerator.backward(loss)
                    norm = torch.nn.utils.clip_grad_norm_(
                        parameters, recipe.optimizer.clip_grad_norm or math.inf
                    )
                    self._guard(norm, batch)
                    optimizer.step()
                    self.step += 1
                    meter.steps += 1
                    meter.loss += loss.item()
                    meter.i2t += parts["i2t"].item()
                    meter.t2i += parts["t2i"].item()
                    meter.grad_norm += norm.item()
                    if trackers is not None and (self.step % train.log_every == 0 or self.step == self.total):
                        values = {
                            **meter.values(recipe.data.batch_size),
                            "lr": rate,
                            "temperature": 1 / float(scale),
                            "epoch": self.step / self.loader.steps_per_epoch,
                        }
                        trackers.log(self.step, values)
                        self.reporter.step(self.step, self.total, values)
                        meter = Meter()
                    self._milestones(trackers)
        finally:
            if trackers is not None:
                trackers.close()
        return {
            "steps": self.step,
            "best": None if math.isinf(self.best) else self.best,
            "best_checkpoint": os.path.realpath(self.out / "best") if (self.out / "best").exists() else None,
            "last_checkpoint": os.path.realpath(self.out / "last"),
        }

    def _objective(self, model: Any, batch: TrainingBatch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        image, text, scale = model(batch.ids, batch.mask, pixels=batch.pixels, features=batch.features)
        all_images, all_texts = gather_images(image), gather_texts(text)
        similarity = self.model.similarity
        rows = similarity(image, all_texts)
        columns = rows if all_images is image else similarity(all_images, text)
        mine, everyone = batch.codes[:, batch.local], batch.codes
        row_positives = positive_targets(*zip(mine, everyone, strict=True))
        column_positives = positive_targets(*zip(everyone, mine, strict=True))
        parts = contrastive_loss(
            rows,
            columns,
            scale,
            row_positives,
            column_positives,
            reduction=self.recipe.objective.reduction,
            smoothing=self.recipe.objective.label_smoothing,
        )
        return parts, scale.detach()

    def _guard(self, value: torch.Tensor, batch: TrainingBatch) -> None:
        """Stop at the first loss or gradient that is not finite, before the weights take it in."""
        if torch.isfinite(value):
            return
        last = self.out / "last"
        good = os.path.realpath(last) if last.exists() else "none yet"
        ids = ", ".join(batch.pair_ids[:8]) + (", …" if len(batch.pair_ids) > 8 else "")
        raise VlcliError(
            f"step {self.step + 1}: loss or gradient is not finite; batch of {len(batch.pair_ids)} ids {ids};"
            f" last good checkpoint: {good}"
        )

    def _milestones(self, trackers: Trackers | None) -> None:
        """Validate, save, prune: at their intervals, at the end, and when a signal asked to stop."""
        train, done = self.recipe.train, self.step == self.total
        due = bool(train.evaluate_every) and self.step % train.evaluate_every == 0
        improved = False
        if trackers is not None and self.validation is not None and (due or done):
            found = self.validation(self.model)
            score = score_of(found, train.best)
            improved = score > self.best
            self.best = max(self.best, score)
            trackers.log(self.step, {"val": found})
            self.reporter.validated(self.step, found, improved)
        scheduled = bool(train.save_every) and self.step % train.save_every == 0
        if self.main and (scheduled or done or improved or self.stop_signal):
            place = save_state(
                self.out,
                self.step,
                self.model,
                self.optimizer,
                recipe=self.recipe.model_dump(mode="json"),
                lineage=self.lineage,
                extra={"best": self.best, "total": self.total, "split_hash": self.lineage["split_hash"]},
            )
            if improved or (self.validation is None and done):
                point(self.out / "best", place)
            prune(self.out, train.keep)
            self.reporter.saved(place)
        if self.stop_signal and not done:
            raise Terminated

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

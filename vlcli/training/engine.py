"""The training engine: resume, accelerate, optimizer, schedule, milestones, checkpoints and signals.

It knows no kind of model. A task says what is trained, on what, and by which loss; the engine takes the steps.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn

from vlcli.errors import Terminated, UsageError, VlcliError
from vlcli.models.checkpoint import resolve_device
from vlcli.models.dropout import pair_key
from vlcli.models.precision import settled
from vlcli.models.storage import align
from vlcli.schemas.classification import StageRecipe
from vlcli.schemas.distillation import DistillRecipe
from vlcli.schemas.key_values import KeyValuesRecipe
from vlcli.schemas.pretraining import Recipe
from vlcli.schemas.text_to_image import DiffusionRecipe
from vlcli.training.finite import stop_unless_finite
from vlcli.training.meter import Meter, Reporter
from vlcli.training.optimizers import build_optimizer, parameter_groups
from vlcli.training.processes import anywhere, mean, on_main
from vlcli.training.run_directory import begin, point, prune, refuse_occupied, rewind, step_name
from vlcli.training.schedules import learning_rate
from vlcli.training.sharding import asked_for, clip_grad_norm, whole
from vlcli.training.state import newest_state, read_state, refuse_another_recipe, save_state
from vlcli.training.trackers import Trackers, chosen
from vlcli.training.weights import Weights

# The others wait while rank 0 fills the feature cache or validates; the default of ten minutes would end the run.
PATIENCE = timedelta(hours=24)

R = TypeVar("R", bound=Recipe | DistillRecipe | DiffusionRecipe | KeyValuesRecipe | StageRecipe)


class Batch(Protocol):
    """One step's share of a process."""

    @property
    def pair_ids(
        self,
    ) -> Sequence[str]: ...  # of the global batch, for what is said of a step that went wrong


class Outcome(NamedTuple):
    """What a step's forward pass gives: the loss that is minimised, and what is shown, averaged over processes and the
    steps between two log lines. `backward`, where the loss has no graph to the parameters of its own."""

    loss: Tensor  # ()
    shown: dict[str, Tensor]  # (), without gradient
    backward: Callable[[], None] | None = None


class Score(NamedTuple):
    """What a validation found: everything, and the number that chooses the best checkpoint (more is better)."""

    found: dict[str, Any]
    value: float
    results: Sequence[Mapping[str, Any]] = ()  # for the model card, with what they are of


class Task(Protocol):
    """What an engine trains."""

    # An nn.Module that save_checkpoint can write. What processes share out (FSDP) is here a whole copy of it while the
    # main one validates and saves.
    model: Any
    total: int  # steps of the run
    steps_per_epoch: int
    identity: dict[str, Any]  # of the data: a run that goes on must have the same
    lineage: dict[str, Any]

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """The batches of steps start … stop − 1, on the device."""

    def losses(self, model: nn.Module, batch: Any, step: int) -> Outcome:
        """`model` is the task's, wrapped for many processes: what is trained goes through its forward."""

    def stepped(self) -> None:
        """After each step of the optimizer."""

    def values(self) -> dict[str, float]:
        """What a log line shows of the model as it is, such as its temperature."""

    def validate(self) -> Score | None:
        """On the main process alone; None when there is nothing to validate on."""

    @property
    def validates(self) -> bool: ...

    def plan(self) -> dict[str, Any]:
        """What the engine does not know of what is about to happen."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry beside the model: tensors (queues, centres, copies that lag behind), numbers and
        texts. Asked of every process, and the main one's is written."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Engine(Generic[R]):
    """A run. `Engine(recipe, out, …)` looks at the directory and finds the checkpoint to go on from (`resumed`);
    `adopt(task)` makes it ready; `run()` trains."""

    def __init__(
        self,
        recipe: R,
        out: Path,
        reporter: Reporter,
        *,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.tracked = chosen(recipe.train.trackers)
        place = resolve_device(device)
        precision = settled(recipe.train.precision, place)
        train = recipe.train.model_copy(update={"precision": precision})
        self.recipe = cast(R, recipe.model_copy(update={"train": train}))
        self.out, self.reporter = out, reporter
        if place.index is not None:
            torch.cuda.set_device(place)
        AcceleratorState._reset_state()  # of an earlier run in this process, which may have had another precision
        self.sharding = asked_for()
        self.accelerator = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision,
            cpu=place.type == "cpu",
            fsdp_plugin=self.sharding,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.device = self.accelerator.device
        self.main = self.accelerator.is_main_process
        self.state: dict[str, Any] | None = None
        self.step, self.best = 0, float("-inf")
        self.best_step: int | None = None
        self.results: Sequence[Mapping[str, Any]] = ()  # what was measured on the weights as they are
        self.meter = Meter()
        self.stop_signal = False
        self.saved_at = time.monotonic()
        self.resumed = self._look_at_directory(resume, force)
        set_seed(recipe.train.seed)

    def _look_at_directory(self, resume: bool, force: bool) -> Path | None:
        """Refuse a directory in use, or find the checkpoint to go on from. Nothing is changed yet."""

        def look() -> Path | None:
            refuse_occupied(self.out, resume=resume, force=force)
            found = newest_state(self.out, self.warn) if resume else None
            if found is None:
                return None
            place, self.state = found
            refuse_another_recipe(place, self.recipe.model_dump(mode="json"))
            return place

        place = on_main(look)
        if place is not None and not self.main:
            self.state = read_state(place)
        return place

    def refuse_other_data(self, identity: Mapping[str, Any]) -> None:
        """UsageError unless a run that goes on has the data it had, and chooses its best by the same. A task asks it as
        soon as it knows, and before it computes anything."""
        before = self.state or {}
        for name, mine in identity.items():
            if name in before and before[name] != mine:
                raise UsageError(
                    f"--resume: {name} was {before[name]}, is {mine}",
                    remedy="resume with the same data and recipe",
                )

    def adopt(self, task: Task) -> None:
        """Take the task on: its optimizer, its state, and a directory ready to be written to."""
        self.task, self.total = task, task.total
        if self.resumed is not None:  # bit for bit as if it had not been stopped
            align(task.model)
        groups, self.decay_report = parameter_groups(task.model, self.recipe.optimizer)
        self.optimizer = build_optimizer(groups, self.recipe.optimizer)
        self.weights = Weights(
            task.model, self.optimizer, self.accelerator, self.sharding, ema=self.recipe.train.ema
        )
        if self.state is not None:
            self.weights.load_state_dict(self.state)
            task.load_state_dict(self.state["task"])
            self.step, self.best = self.state["step"], self.state["best"]
            self.best_step = self.state["best_step"]
            self.meter = Meter.resumed(self.state["meter"])
        if not on_main(self._prepare_directory):
            self.warn("the best checkpoint is gone; the next validation chooses anew")
            self.best, self.best_step = float("-inf"), None

    def _prepare_directory(self) -> bool:
        """Clear or rewind the run's directory: only now, when everything that could be refused has been read.
        False when the best checkpoint of a run that goes on is gone."""
        if self.state is None:
            begin(self.out, self.recipe)
            return True
        found = rewind(self.out, self.out / "checkpoints" / step_name(self.step), self.best_step)
        prune(self.out, self.recipe.train.keep)  # which the stopped process may not have come to
        return found

    def warn(self, text: str) -> None:
        """Said once, by the main process."""
        if self.main:
            self.reporter.warn(text)

    def plan(self) -> dict[str, Any]:
        """What is about to happen, for the reporter."""
        return {
            "recipe": self.recipe.name,
            "steps": self.total,
            "steps_per_epoch": self.task.steps_per_epoch,
            "batch_size": self.recipe.data.batch_size,
            "processes": self.accelerator.num_processes,
            "peak_lr": self.recipe.peak_lr,
            "decay": self.decay_report,
            "resumed_at": self.step if self.state is not None else None,
            **self.task.plan(),
        }

    def run(self) -> dict[str, Any]:
        """Train to the last step; returns {"steps", "best", "best_checkpoint", "last_checkpoint"}."""
        if self.main:
            self.reporter.plan(self.plan())
        with self._room_on_disk(), self._defer_sigterm():
            trackers = self._trackers() if self.main else None
            try:
                self._train(trackers)
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

    def _trackers(self) -> Trackers:
        return Trackers(
            self.out,
            self.tracked,
            resume_step=self.step if self.state is not None else None,
            recipe=self.recipe.model_dump(mode="json"),
            warn=self.warn,
        )

    def _train(self, trackers: Trackers | None) -> None:
        batches = self.task.batches(self.step, self.total)
        while self.step < self.total:
            with self.meter.waiting():
                batch = next(batches)
            with self.meter.computing():
                rate = self._take_step(batch)
            self._log(trackers, rate)
            self._milestones(trackers)

    def _take_step(self, batch: Batch) -> float:
        """One step of the optimizer; returns its learning rate."""
        recipe, step, optimizer = self.recipe, self.step, self.weights.stepper
        rate = learning_rate(step, self.total, recipe.peak_lr, recipe.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
        optimizer.zero_grad(set_to_none=True)
        # Our dropout has the pairs' keys; this is for a tower that brings its own. No generator outlives a step.
        torch.manual_seed(pair_key(recipe.train.seed, step, self.accelerator.process_index))
        loss, shown, backward = self.task.losses(self.weights.wrapped, batch, step)
        means = mean(torch.stack([loss.detach(), *shown.values()]))
        stop_unless_finite(means[0], batch.pair_ids, self.out, step + 1)
        if backward is None:
            self.accelerator.backward(loss)
        else:
            backward()
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = clip_grad_norm(parameters, recipe.optimizer.clip_grad_norm or math.inf)
        # fp16 loses a step now and then, until its scaler has found a scale; below 1 there is nothing left to find.
        if scaler is None or scaler.get_scale() < 1:
            stop_unless_finite(norm, batch.pair_ids, self.out, step + 1)
        optimizer.step()
        self.task.stepped()
        self.step += 1
        self.weights.stepped(self.step)
        self.results = ()
        self.meter.add(dict(zip(("loss", *shown), means.tolist(), strict=True)) | {"grad_norm": norm.item()})
        return rate

    def _log(self, trackers: Trackers | None, rate: float) -> None:
        train, meter = self.recipe.train, self.meter
        if self.step % train.log_every and self.step != self.total:
            return
        self.meter = Meter()
        if trackers is None:
            return
        values = {
            **meter.values(self.recipe.data.batch_size),
            "lr": rate,
            **self.task.values(),
            **self.weights.values(),
            "epoch": self.step / self.task.steps_per_epoch,
        }
        trackers.log(self.step, values)
        self.reporter.step(self.step, self.total, values)

    def _milestones(self, trackers: Trackers | None) -> None:
        """Validate, save, prune: at their intervals, at the end, and when a signal asked to stop."""
        train, done = self.recipe.train, self.step == self.total
        due = bool(train.evaluate_every) and self.step % train.evaluate_every == 0
        improved = False
        if self.task.validates and (due or done):
            with self.weights.judged(self.task):
                score = on_main(lambda: self._validate(trackers))
            improved = score > self.best
            self.best = max(self.best, score)
        if improved or (not self.task.validates and done):
            self.best_step = self.step
        scheduled = bool(train.save_every) and self.step % train.save_every == 0
        late = bool(train.save_minutes) and time.monotonic() - self.saved_at >= 60 * train.save_minutes
        stopping, overdue = anywhere([self.stop_signal, late and self.main], self.device)
        if scheduled or overdue or done or improved or stopping:
            state = self.weights.state_dict() | {"task": whole(self.task.state_dict(), keep=self.main)}
            with self.weights.judged(self.task):
                on_main(lambda: self._save(trackers, state))
            self.saved_at = time.monotonic()
        if stopping and not done:
            raise Terminated

    def _validate(self, trackers: Trackers | None) -> float:
        assert trackers is not None
        score = self.task.validate()
        assert score is not None
        trackers.log(self.step, {"val": score.found})
        self.results = score.results
        self.reporter.validated(self.step, score.found, score.value > self.best)
        return score.value

    def _save(self, trackers: Trackers | None, state: dict[str, Any]) -> None:
        assert trackers is not None
        trackers.flush()  # a run that goes on from here does not say again what came before
        place = save_state(
            self.out,
            self.step,
            self.task.model,
            {
                **state,
                "best": self.best,
                "best_step": self.best_step,
                **self.task.identity,
                "meter": self.meter.sums(),
            },
            recipe=self.recipe.model_dump(mode="json"),
            lineage=self.task.lineage,
            results=self.results,
        )
        if self.best_step == self.step:
            point(self.out / "best", place)
        prune(self.out, self.recipe.train.keep)
        self.reporter.saved(place)

    @contextmanager
    def _room_on_disk(self) -> Iterator[None]:
        """A full disk met outside a checkpoint, as by a log line, is said as clearly as one met inside."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            cause = f"cannot write in {self.out}: {error.strerror}"
            raise VlcliError(cause, remedy="--resume goes on from the last checkpoint") from error

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

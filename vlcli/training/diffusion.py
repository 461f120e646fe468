"""Training of what stands behind a dual encoder: a prior or a decoder, by the error of what it says of noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlcli import __version__
from vlcli.generation.noise_process import NoiseProcess
from vlcli.generation.unclip import as_encoder
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.schemas.text_to_image import DiffusionRecipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.engine import Engine, Outcome, Score
from vlcli.training.image_embeddings import ImageEmbeddings
from vlcli.training.loader import Loader, TrainingBatch
from vlcli.training.meter import Reporter
from vlcli.training.noisy import chance
from vlcli.training.processes import world_size


class DiffusionTraining(ABC):
    """A run: `PriorTraining(recipe, encoder, train, out, reporter, …).run()`. `encoder` is fixed, and its hash goes
    into what is trained; `train` and `validation` are tables of pairs."""

    model: Any
    shape: tuple[int, ...]  # of a sample

    def __init__(
        self,
        recipe: DiffusionRecipe,
        encoder: DualEncoder,
        train: PairTable,
        out: Path,
        reporter: Reporter,
        *,
        validation: PairTable | None = None,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.encoder = as_encoder(encoder)
        self.engine: Engine[Any] = Engine(recipe, out, reporter, device=device, resume=resume, force=force)
        self.recipe: Any = self.engine.recipe  # with its precision settled
        self.table, self.reporter = train, reporter
        self.process = NoiseProcess(recipe.model.noise)
        self.total = recipe.steps(len(train))
        self.identity = {
            "split_hash": train.split_hash,
            "total": self.total,
            "validation": None if validation is None else validation.split_hash,
            "encoder": encoder.checkpoint_hash,
        }
        self.engine.refuse_other_data(self.identity)
        self.lineage = {"vlcli": __version__, "split_hash": train.split_hash, "pairs": len(train)}
        self.model = (self._new() if self.engine.resumed is None else self._load(self.engine.resumed)).train()
        self.model.to(self.engine.device)
        self.encoder.to(self.engine.device)
        # First, because it refuses batches that cannot be: encoding all images may take hours.
        self.loader = self._loader()
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.embeddings = ImageEmbeddings(encoder, recipe.data, precision=self.recipe.train.precision)
        places = self.embeddings.add(train, reporter.features if self.engine.main else None)
        self.loader.read_features(self.embeddings.store, places, {})
        if self.engine.resumed is None:
            self.model.standardise_by(*self.embeddings.moments(places))
        self.validation = None if validation is None else self._validation(validation)
        self.engine.adopt(self)

    def _loader(self) -> Loader:
        return Loader(self.table, self.encoder, self.recipe.data, **self._share())

    def _share(self) -> dict[str, Any]:
        accelerator = self.engine.accelerator
        place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
        return {"seed": self.recipe.train.seed, "warn": self.engine.warn, **place}

    # What a stage is

    @abstractmethod
    def _new(self) -> nn.Module:
        """The model before its first step."""

    @abstractmethod
    def _load(self, place: Path) -> nn.Module:
        """The model of a checkpoint to go on from."""

    @abstractmethod
    def _validation(self, table: PairTable) -> Callable[[Any], dict[str, Any]]:
        """What measures the model on validation's rows."""

    @abstractmethod
    def _sample(self, batch: TrainingBatch) -> Tensor:
        """What noise is added to."""

    @abstractmethod
    def _condition(self, batch: TrainingBatch, gone: Tensor) -> Any:
        """What the model is told, but of those that are gone (b,); sliced by `.rows` or as a tensor."""

    def run(self) -> dict[str, Any]:
        """Train to the last step: see `Engine.run`."""
        return self.engine.run()

    # What the engine asks of a task

    @property
    def validates(self) -> bool:
        return self.validation is not None

    def plan(self) -> dict[str, Any]:
        return {
            "pairs": len(self.table),
            "images": self.table.images,
            "encoder": self.encoder.checkpoint_hash,
            "parameters": trainable_report(self.model),
            "features": str(self.embeddings.store.folder),
        }

    def batches(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        for batch in self.loader.batches(start, stop):
            yield batch.to(self.engine.device, self.loader.preprocess)

    def losses(self, model: nn.Module, batch: TrainingBatch, step: int) -> Outcome:
        drop = self.recipe.objective.drop
        keys = batch.keys.tolist()
        drawn = chance(keys, self.shape, levels=len(self.process), drop=drop).to(self.engine.device)
        sample, condition = self._sample(batch), self._condition(batch, drawn.gone)
        noisy = self.process.add(sample, drawn.noise, drawn.level)
        target = self.process.target(sample, drawn.noise, drawn.level)
        share = world_size() / len(batch.pair_ids)  # the mean over processes is the mean over the batch

        def loss_of(rows: slice) -> Tensor:
            told = condition.rows(rows) if hasattr(condition, "rows") else condition[rows]
            said = model(noisy[rows], drawn.level[rows], told).float()
            return (said - target[rows]).square().flatten(1).mean(1).sum() * share

        chunk, pairs = self.recipe.train.chunk, len(keys)
        if not chunk or chunk >= pairs:
            return Outcome(loss_of(slice(0, pairs)), {})
        return self._in_chunks(model, loss_of, range(0, pairs, chunk), chunk)

    def _in_chunks(
        self, model: nn.Module, loss_of: Callable[[slice], Tensor], starts: range, chunk: int
    ) -> Outcome:
        """Gradients of one chunk after the other; processes exchange them once, in the last."""
        total = torch.zeros((), device=self.engine.device)
        for start in starts:
            waits = isinstance(model, DistributedDataParallel) and start != starts[-1]
            with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
                loss = loss_of(slice(start, start + chunk))
                self.engine.accelerator.backward(loss)
            total += loss.detach()
        return Outcome(total, {}, lambda: None)

    def stepped(self) -> None:  # noqa: B027 - there is nothing beside the optimizer
        pass

    def values(self) -> dict[str, float]:
        return {}

    def validate(self) -> Score | None:
        if self.validation is None:
            return None
        self.model.eval()
        try:
            found = self.validation(self.model)
        finally:
            self.model.train()
        best = self.recipe.train.best
        return Score(found, -found["loss"] if best == "loss" else found["t2i"][best])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state

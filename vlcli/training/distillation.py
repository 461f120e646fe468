"""Teacher learning by a recipe: the task of `distill` (AltCLIP §3.1)."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vlcli import __version__
from vlcli.cache import default_directory
from vlcli.curation.parallel_text import Pair, ParallelText
from vlcli.errors import UsageError
from vlcli.models.checkpoint import load_text_encoder
from vlcli.models.dual import trainable_report
from vlcli.models.text_encoder import TextEncoder
from vlcli.objectives.contrastive import total_loss
from vlcli.objectives.teacher import teacher_loss
from vlcli.records.reader import read
from vlcli.schemas.distillation import DistillRecipe, StudentConfig
from vlcli.training.engine import Engine, Outcome, Score
from vlcli.training.meter import Reporter
from vlcli.training.parallel_table import ParallelTable, parallel_table
from vlcli.training.parallel_validation import ParallelValidation
from vlcli.training.processes import on_main
from vlcli.training.student import new_student, refuse_width, student_of
from vlcli.training.teacher import Teacher, TeacherVectors, open_teacher
from vlcli.training.text_loader import TextBatch, TextLoader


class Distillation:
    """A run: `Distillation(recipe, data, teacher, out, …).run()`. `data` and `validation` name files of parallel text,
    `teacher` and `student` are what `open_teacher` and `student_of` take."""

    def __init__(
        self,
        recipe: DistillRecipe,
        data: Sequence[str],
        teacher: str,
        out: Path,
        reporter: Reporter,
        *,
        student: str | None = None,
        validation: Sequence[str] = (),
        head: int | None = None,
        renames: dict[str, str] | None = None,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
    ) -> None:
        text, weights = recipe.model.text, None
        if student is not None or not resume:
            text, weights = student_of(text, student)
            recipe = recipe.model_copy(update={"model": StudentConfig(text=text)})
        self.engine = Engine(recipe, out, reporter, device=device, resume=resume, force=force)
        self.recipe = recipe = self.engine.recipe  # with its precision settled
        self.reporter, precision = reporter, recipe.train.precision
        if self.engine.resumed is None and student is None:
            weights = student_of(text, None)[1]
        self.teacher: Teacher = open_teacher(
            teacher, target=recipe.distill.target, device=str(self.engine.device), precision=precision
        )
        self.model: TextEncoder
        if self.engine.resumed is not None:
            self.model = load_text_encoder(self.engine.resumed).train()
            refuse_width(self.model.config.text, self.teacher)
        else:
            refuse_width(text, self.teacher)
            self.model = new_student(text, weights, self.teacher)
        self.model.to(self.engine.device)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.vectors = TeacherVectors(self.teacher, self._cache("teacher"), precision=precision)
        self.table = self._table(data, head, renames)
        pairs = _pairs(validation, recipe.distill.languages, renames)
        self.validation = ParallelValidation(pairs, self.vectors) if pairs else None
        self.loader = TextLoader(
            self.table,
            self.vectors,
            recipe.distill,
            recipe.data,
            padding=self.model.config.text.padding_id,
            seed=recipe.train.seed,
            rank=self.engine.accelerator.process_index,
            world=self.engine.accelerator.num_processes,
        )
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.total = recipe.steps(self.loader.pairs_per_epoch)
        self.identity = {
            "split_hash": self.table.split_hash,
            "total": self.total,
            "teacher": self.teacher.fingerprint,
            "validation": _hash(pairs),
        }
        self.engine.refuse_other_data(self.identity)
        self.lineage = {
            "vlcli": __version__,
            "split_hash": self.table.split_hash,
            "pairs": len(self.table),
            "teacher": self.teacher.fingerprint,
        }
        self.loader.read_vectors(self._teach())  # last: it may take hours
        self.engine.adopt(self)

    def _cache(self, kind: str) -> Path:
        """Where tokens and vectors are kept."""
        cache = self.recipe.data.cache
        if cache == "off":
            self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="vlcli-")
            return Path(self._temporary.name) / kind
        return default_directory(kind) if cache == "auto" else Path(cache) / kind

    def _table(self, data: Sequence[str], head: int | None, renames: dict[str, str] | None) -> ParallelTable:
        """The table of pairs; rank 0 makes it, and the others where they do not see its disk."""

        def make() -> ParallelTable:
            return parallel_table(
                data,
                self.model.tokenizer,
                languages=self.recipe.distill.languages,
                identity=self.recipe.distill.identity,
                context=self.model.config.text.context,
                cache=self._cache("parallel"),
                head=head,
                renames=renames,
            )

        mine: list[ParallelTable] = []
        on_main(lambda: mine.append(make()))
        return mine[0] if mine else make()

    def _teach(self) -> np.ndarray:
        """Where the teacher's vector of each English sentence of the table is."""
        found: list[np.ndarray] = []

        def add(reporter: Reporter | None = None) -> np.ndarray:
            progress = None if reporter is None else reporter.features
            return self.vectors.add(self.table.teacher_keys, self.table.texts, progress=progress)

        def add_all() -> None:
            found.append(add(self.reporter))
            if self.validation is not None:
                self.validation.prepare()

        on_main(add_all)
        return found[0] if found else add()

    def run(self) -> dict[str, Any]:
        """Train to the last step: see `Engine.run`."""
        return self.engine.run()

    # What the engine asks of a task

    @property
    def validates(self) -> bool:
        return self.validation is not None

    def plan(self) -> dict[str, Any]:
        names = self.table.names
        amounts: dict[str, dict[str, int]] = {}
        for number, pairs in self.loader.quotas.items():
            amounts.setdefault(names[number][0], {})[names[number][1]] = pairs
        return {
            **{key: self.table.about[key] for key in ("rows", "pairs", "repeated", "empty")},
            "pairs_per_epoch": self.loader.pairs_per_epoch,
            "amounts": amounts,
            "teacher": self.teacher.name,
            "width": self.teacher.width,
            "parameters": trainable_report(self.model),
            "vectors": str(self.vectors.store.folder),
        }

    def batches(self, start: int, stop: int) -> Iterator[TextBatch]:
        for batch in self.loader.batches(start, stop):
            yield batch.to(self.engine.device)

    def losses(self, model: nn.Module, batch: TextBatch, step: int) -> Outcome:
        said = model(batch.ids, batch.mask, batch.keys)
        return Outcome(total_loss(teacher_loss(said, batch.target)), {})

    def stepped(self) -> None:
        pass

    def values(self) -> dict[str, float]:
        return {}

    def validate(self) -> Score | None:
        if self.validation is None:
            return None
        found = self.validation(self.model)
        if self.recipe.train.best == "loss":
            return Score(found, -found["loss"])
        return Score(found, -math.inf if found["R@1"] is None else found["R@1"])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


def _pairs(paths: Sequence[str], languages: Sequence[str], renames: dict[str, str] | None) -> list[Pair]:
    """The pairs of validation files; UsageError where there is none."""
    if not paths:
        return []
    text = ParallelText(languages, identity=True)
    pairs = [pair for pair, *_ in text.pairs(read(paths, renames=renames))]
    if not pairs:
        raise UsageError(f"--val {' '.join(paths)}: no pairs")
    return pairs


def _hash(pairs: Sequence[Pair]) -> str | None:
    return hashlib.sha256("\n".join(map(str, pairs)).encode()).hexdigest() if pairs else None

"""Training a captioner out of an R2D2: the task of `finetune --task caption` (R2D2 App. C)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlcli.errors import UsageError
from vlcli.evaluation.caption_metrics.score import score_captions
from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import decode_row, inference
from vlcli.generation.captions import Decoding, captions_of
from vlcli.models.captioner import Captioner, refuse_unfit_text_encoder
from vlcli.models.checkpoint import load_captioner
from vlcli.models.config import CaptionerConfig, CrossConfig, DualEncoderConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.models.initial import fill
from vlcli.objectives.captioning import caption_loss, told
from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.engine import Outcome, Score
from vlcli.training.features import FeatureStore
from vlcli.training.finetuning import at_resolution
from vlcli.training.loader import TrainingBatch
from vlcli.training.pretraining import Pretraining
from vlcli.training.r2d2_objective import mean_of

BATCH = 64
# Where the tensors of an R2D2 go; the first that a name begins with counts, and what begins with none stays behind.
PLACES = {
    "image.": "image.",
    "text.": "text.",
    "ranking.text_cross.": "cross.",
    "ranking.mask_head.": "head.",
}


def captioner_of(source: DualEncoder, config: DualEncoderConfig, file: Path) -> tuple[Captioner, list[str]]:
    """A captioner that starts from an R2D2, whose architecture `config` is but for what a recipe changes of it; and the
    names of the R2D2's tensors that stay behind.

    The head for masked words is where the captioner's starts; an R2D2 without one gives way to a random start.
    UsageError for a model without cross encoders, and a text encoder that looks ahead; else as `finetuning.started`.
    """
    if source.ranking is None or config.ranking is None:
        raise UsageError("--task caption starts from an R2D2, and the checkpoint is a dual encoder")
    cross = config.ranking.model_dump(include=set(CrossConfig.model_fields))
    shape = CaptionerConfig(
        image=config.image, text=config.text, cross=CrossConfig(**cross), train=config.train
    )
    model = Captioner(shape, source.tokenizer)
    refuse_unfit_text_encoder(model)
    state, left = {}, []
    for name, tensor in at_resolution(source.state_dict(), model).items():
        found = next((first for first in PLACES if name.startswith(first)), None)
        if found is None:
            left.append(name)
        else:
            state[PLACES[found] + name.removeprefix(found)] = tensor
    state = {name: x for name, x in model.state_dict().items() if name.startswith("head.")} | state
    fill(model, state, "the recipe's model", file)
    return model, left


class CaptionTraining(Pretraining):
    """Pairs, whose texts are learnt token by token. A text that says nothing, of special tokens alone, has no part in
    the loss, and is counted."""

    def _load(self, place: Path) -> Captioner:
        return load_captioner(place, "cpu")

    def _make_objective(self, recipe: Recipe) -> None:
        assert recipe.objective.caption is not None
        self.label_smoothing = recipe.objective.caption.label_smoothing
        self.silent = 0  # texts so far

    def _judge(
        self, table: PairTable, store: FeatureStore | None, rows: np.ndarray | None
    ) -> CaptionValidation:
        best = self.recipe.train.best
        return CaptionValidation(
            table,
            self.model,
            store=store,
            store_rows=rows,
            precision=self.recipe.train.precision,
            tokenizer=None if best == "loss" else best.removeprefix("cider_"),
        )

    def losses(self, model: nn.Module, batch: TrainingBatch, step: int) -> Outcome:
        wanted = told(batch.ids, batch.mask)
        silent = int((~wanted.any(1)).sum())
        if silent and not self.silent:
            self.engine.warn("there are texts without a token between [CLS] and [SEP]: they are left out")
        self.silent += silent
        logits = model(through=lambda student: self._logits(student, batch, wanted))
        loss = mean_of(caption_loss(logits, batch.ids[:, 1:][wanted], label_smoothing=self.label_smoothing))
        shown = {"caption_loss": loss.detach(), "silent": torch.tensor(float(silent), device=loss.device)}
        return Outcome(loss, shown)

    @staticmethod
    def _logits(model: Captioner, batch: TrainingBatch, wanted: Tensor) -> Tensor:
        """(t, vocabulary) of the places where something is learnt."""
        features = batch.features
        if features is None:
            assert batch.pixels is not None
            features = model.image_features(batch.pixels)
        states = model.states(batch.ids[:, :-1], model.pictures(features), keys=batch.keys)
        return model.logits(states[wanted])

    def stepped(self) -> None:
        pass

    def values(self) -> dict[str, float]:
        return {"chance_loss": self.recipe.chance_loss}

    def validate(self) -> Score | None:
        if self.validation is None:
            return None
        self.model.eval()
        try:
            found = self.validation(self.model)
        finally:
            self.model.train()
        described = {**describe(self.model, self.validation.table, self.validation.texts), "task": "caption"}
        best = self.recipe.train.best
        return Score(found, -found["loss"] if best == "loss" else found[best], [{**described, **found}])


class CaptionValidation:
    """`validation(model)` → {"images", "texts", "tokens", "loss"}: the mean cross-entropy of a token of all the rows'
    texts and of their ends. Each row's picture is encoded once, and not at all where a feature store has it.

    With a `tokenizer` also the CIDEr-D of what the model writes greedily, "cider_char" or "cider_jieba": of each image
    one caption, against the texts of all its rows.
    """

    def __init__(
        self,
        table: PairTable,
        model: Captioner,
        *,
        store: FeatureStore | None,
        store_rows: np.ndarray | None,
        precision: str,
        tokenizer: str | None = None,
    ) -> None:
        self.table, self.store, self.store_rows, self.precision = table, store, store_rows, precision
        self.tokenizer = tokenizer
        self.texts = [text for row in table.texts for text in row]
        self.rows = [row for row, texts in enumerate(table.texts) for _ in texts]
        ids, mask = model.tokenize(self.texts)
        if not bool(told(ids, mask).any()):
            raise UsageError(f"--val {table.source}: none of its texts has a token that could be written")

    def __call__(self, model: Captioner) -> dict[str, Any]:
        value, weight = 0.0, 0.0
        for start in range(0, len(self.texts), BATCH):
            part = slice(start, start + BATCH)
            rows = list(dict.fromkeys(self.rows[part]))
            place = {row: i for i, row in enumerate(rows)}
            shown = torch.tensor([place[row] for row in self.rows[part]], device=model.device)
            ids, mask = model.tokenize(self.texts[part])
            wanted = told(ids, mask)
            with torch.no_grad(), inference(model, self.precision):
                pictures = model.pictures(self._features(model, rows))[shown]
                logits = model.logits(model.states(ids[:, :-1], pictures)[wanted])
            loss = caption_loss(logits, ids[:, 1:][wanted])
            value, weight = value + float(loss.value), weight + float(loss.weight)
        return {
            "images": len({*self.table.image_ids}),
            "texts": len(self.texts),
            "tokens": int(weight),
            "loss": value / weight,
            **({} if self.tokenizer is None else self._cider(model, self.tokenizer)),
        }

    def _cider(self, model: Captioner, tokenizer: str) -> dict[str, float]:
        first, references = dict[str, int](), dict[str, list[str]]()
        for row, image in enumerate(self.table.image_ids):
            first.setdefault(image, row)
            references.setdefault(image, []).extend(self.table.texts[row])
        rows, written = list(first.values()), list[str]()
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            with torch.no_grad(), inference(model, self.precision):
                pictures = model.pictures(self._features(model, part))
                written += [one.text for one in captions_of(model, pictures, Decoding(), part)]
        scores = score_captions(
            written, list(references.values()), tokenizers=[tokenizer], metrics=["cider"], bootstrap=0
        )
        return scores.corpus

    def _features(self, model: Captioner, rows: list[int]) -> ImageFeatures:
        if self.store is not None and self.store_rows is not None:
            return ImageFeatures(*(x.to(model.device) for x in self.store.take(self.store_rows[rows])))
        pixels = torch.stack([model.preprocess(decode_row(self.table, row)) for row in rows])
        return model.image_features(pixels.to(model.device))

"""Training of a prior: the second stage of text-to-image (R2D2 App. C)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vlcli.generation.unclip import text_condition
from vlcli.models.checkpoint import load_prior
from vlcli.models.diffusion_config import PriorConfig
from vlcli.models.prior import Prior, TextCondition
from vlcli.shards.pair_table import PairTable
from vlcli.training.diffusion import DiffusionTraining
from vlcli.training.diffusion_validation import PriorValidation
from vlcli.training.loader import TrainingBatch


class PriorTraining(DiffusionTraining):
    """It learns to say of a noisy image embedding, and of the text beside the picture, what the embedding is."""

    def _new(self) -> Prior:
        encoder = self.encoder.config
        self.shape = (encoder.dim,)
        config = PriorConfig(
            **self.recipe.model.model_dump(),
            encoder=self.encoder.checkpoint_hash,
            dim=encoder.dim,
            text_width=encoder.text.width,
            context=encoder.text.context,
        )
        return Prior(config)

    def _load(self, place: Path) -> Prior:
        self.shape = (self.encoder.config.dim,)
        return load_prior(place)

    def _validation(self, table: PairTable) -> PriorValidation:
        train = self.recipe.train
        steps, precision = min(train.sample_steps, len(self.process)), train.precision
        return PriorValidation(table, self.encoder, self.embeddings, steps=steps, precision=precision)

    def _sample(self, batch: TrainingBatch) -> Tensor:
        assert batch.features is not None
        with torch.no_grad():
            pooled = self.encoder.project_image(batch.features).pooled
        assert pooled is not None
        sample: Tensor = self.model.standardise(pooled)
        return sample

    def _condition(self, batch: TrainingBatch, gone: Tensor) -> TextCondition:
        return text_condition(self.encoder, batch.ids, batch.mask).dropped(gone)

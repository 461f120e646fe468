"""Training of a decoder: the third stage of text-to-image (R2D2 App. C)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vlcli.errors import InputError
from vlcli.images.preprocess import Preprocess
from vlcli.models.checkpoint import load_decoder
from vlcli.models.decoder import Decoder
from vlcli.models.diffusion_config import DecoderConfig
from vlcli.shards.pair_table import PairTable
from vlcli.training.diffusion import DiffusionTraining
from vlcli.training.diffusion_validation import DecoderValidation
from vlcli.training.loader import Loader, TrainingBatch
from vlcli.training.processes import fail


class PictureLoader(Loader):
    """Batches with both: the features of a picture that an encoder gave, and its pixels as a decoder draws them."""

    def batches(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        if start >= stop:
            return
        for batch, found in zip(super().batches(start, stop), self._pixels(start, stop), strict=True):
            for (
                place,
                cause,
            ) in found.bad.items():  # it could be read a moment ago, or it would have no features
                fail(
                    InputError(
                        f"image of {batch.pair_ids[batch.local][place]}: {cause}", file=self.table.source
                    )
                )
            batch.pixels = found.pixels
            yield batch


class DecoderTraining(DiffusionTraining):
    """It learns to say of a noisy picture, and of its embedding, what the noise is."""

    def _new(self) -> Decoder:
        of = {"encoder": self.encoder.checkpoint_hash, "dim": self.encoder.config.dim}
        return self._shaped(Decoder(DecoderConfig(**self.recipe.model.model_dump(), **of)))

    def _load(self, place: Path) -> Decoder:
        return self._shaped(load_decoder(place))

    def _shaped(self, model: Decoder) -> Decoder:
        self.shape = (3, model.config.size, model.config.size)
        return model

    def _loader(self) -> Loader:
        loader = PictureLoader(self.table, self.encoder, self.recipe.data, **self._share())
        loader.preprocess = Preprocess(self.model.pixels)
        return loader

    def _validation(self, table: PairTable) -> DecoderValidation:
        return DecoderValidation(table, self.embeddings, precision=self.recipe.train.precision)

    def _sample(self, batch: TrainingBatch) -> Tensor:
        assert batch.pixels is not None
        return batch.pixels

    def _condition(self, batch: TrainingBatch, gone: Tensor) -> Tensor:
        assert batch.features is not None
        with torch.no_grad():
            pooled = self.encoder.project_image(batch.features).pooled
        assert pooled is not None
        standard: Tensor = self.model.standardise(pooled)
        return standard.masked_fill(gone[:, None], 0.0)

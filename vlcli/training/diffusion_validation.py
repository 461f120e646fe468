"""What a prior or a decoder says of rows that it was not trained on: its loss with their conditions, with none, and
with those of other rows. A condition that is heeded makes the first the least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.evaluation.embed import decode_row, embed_texts, inference, similarity_of
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.retrieval import retrieval
from vlcli.generation.noise_process import NoiseProcess
from vlcli.generation.pictures import noise_of
from vlcli.generation.unclip import predicted_embeddings, text_condition
from vlcli.images.preprocess import Preprocess
from vlcli.models.decoder import Decoder
from vlcli.models.dropout import pair_key
from vlcli.models.dual import DualEncoder, ImageTokens, TextTokens
from vlcli.models.prior import Prior, TextCondition
from vlcli.shards.pair_table import PairTable
from vlcli.training.image_embeddings import ImageEmbeddings
from vlcli.training.noisy import chance

BATCH = 64


def other_rows(rows: int) -> np.ndarray:
    """(rows,) for each row another one, none twice: whose condition it is given. Of one row it is that row."""
    return np.roll(np.arange(rows), -max(1, rows // 2))


@torch.no_grad()
def noisy_losses(
    model: Any,
    process: NoiseProcess,
    names: Sequence[str],
    sample: Callable[[np.ndarray], Tensor],
    condition: Callable[[np.ndarray], Any],
    without: Callable[[Any], Any],
) -> dict[str, float]:
    """`loss`, `unconditional_loss` and `shuffled_loss`, means over the rows `names`, each with a level and noise that
    are functions of its name. `sample(rows)` and `condition(rows)` give what rows have, `without(condition)` none."""
    others, sums = other_rows(len(names)), torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(names), BATCH):
        rows = np.arange(start, min(start + BATCH, len(names)))
        clean, told = sample(rows), condition(rows)
        keys = [pair_key("validation", name) for name in names[start : start + BATCH]]
        drawn = chance(keys, clean.shape[1:], levels=len(process), drop=0.0).to(clean.device)
        noisy = process.add(clean, drawn.noise, drawn.level)
        target = process.target(clean, drawn.noise, drawn.level)
        for place, one in enumerate((told, without(told), condition(others[rows]))):
            said = model(noisy, drawn.level, one).float()
            sums[place] += (said - target).square().flatten(1).mean(1).sum().cpu()
    means = (sums / len(names)).tolist()
    return dict(zip(("loss", "unconditional_loss", "shuffled_loss"), means, strict=True))


class PriorValidation:
    """`validation(prior)` → the three losses, and under `t2i` how often the embedding that is drawn for a text finds
    its picture among the table's, beside the text's own embedding (`text`); in percent."""

    def __init__(
        self,
        table: PairTable,
        encoder: DualEncoder,
        embeddings: ImageEmbeddings,
        *,
        steps: int,
        precision: str,
    ) -> None:
        self.encoder, self.steps, self.precision = encoder, steps, precision
        self.gallery = Gallery.of(table)
        rows = self.gallery.image_rows
        self.images = embeddings.at(embeddings.add(table)[rows]).cpu()
        self.names = [table.ids[row] for row in rows]
        self.firsts = [table.texts[row][0] for row in rows]
        texts = embed_texts(encoder, self.gallery.texts, precision=precision)
        self.text_recall = self._recall(texts)

    def __call__(self, prior: Prior) -> dict[str, Any]:
        device = prior.device

        def without(told: TextCondition) -> TextCondition:
            return told.dropped(torch.ones(len(told.pooled), dtype=torch.bool, device=device))

        with inference(prior, self.precision):
            losses = noisy_losses(
                prior,
                NoiseProcess(prior.config.noise),
                self.names,
                lambda rows: prior.standardise(self.images[rows].to(device)),
                lambda rows: self._told([self.firsts[row] for row in rows]),
                without,
            )
            drawn = self.drawn(prior)
        none = torch.empty(len(drawn), 0, dtype=torch.bool)
        recall = self._recall(TextTokens(None, none, none, drawn))
        return {"n": len(self.names), **losses, "t2i": recall, "text": self.text_recall}

    def drawn(self, prior: Prior) -> Tensor:
        """(texts, d) on the CPU: an embedding of each text of the gallery, drawn from noise that is the text's own."""
        parts = []
        for start in range(0, len(self.gallery.texts), BATCH):
            texts = self.gallery.texts[start : start + BATCH]
            noise = noise_of(0, texts, (prior.config.dim,)).to(prior.device)
            told = self._told(texts)
            parts.append(predicted_embeddings(prior, told, noise, steps=self.steps).float().cpu())
        return torch.cat(parts)

    def _told(self, texts: Sequence[str]) -> TextCondition:
        return text_condition(self.encoder, *self.encoder.tokenize(list(texts)))

    def _recall(self, texts: TextTokens) -> dict[str, float]:
        assert texts.pooled is not None
        images = ImageTokens(None, F.normalize(self.images, dim=-1))
        found = retrieval(similarity_of(self.encoder), images, texts, self.gallery.positives, bootstrap=0)
        recall: dict[str, float] = found["t2i"]
        return recall


class DecoderValidation:
    """`validation(decoder)` → the three losses on the table's pictures."""

    def __init__(self, table: PairTable, embeddings: ImageEmbeddings, *, precision: str) -> None:
        self.table, self.precision = table, precision
        self.rows = Gallery.of(table).image_rows
        self.names = [table.ids[row] for row in self.rows]
        self.embeddings = embeddings.at(embeddings.add(table)[self.rows]).cpu()

    def __call__(self, decoder: Decoder) -> dict[str, Any]:
        preprocess = Preprocess(decoder.pixels)

        def pixels(rows: np.ndarray) -> Tensor:
            found = [preprocess(decode_row(self.table, self.rows[row])) for row in rows]
            return torch.stack(found).to(decoder.device)

        with inference(decoder, self.precision):
            losses = noisy_losses(
                decoder,
                NoiseProcess(decoder.config.noise),
                self.names,
                pixels,
                lambda rows: decoder.standardise(self.embeddings[rows].to(decoder.device)),
                torch.zeros_like,
            )
        return {"n": len(self.names), **losses}

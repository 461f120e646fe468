"""R2D2's objective on one step: pre-ranking, ranking, masked words, and what the momentum copies teach (R2D2 §3.2).

L = L_GCPR^TgD + L_FGR + L_MLM + L_FgD                                              (Eq 8)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.models.dropout import levels
from vlcli.models.dual import DualEncoder, TextTokens
from vlcli.models.image_tower import ImageFeatures
from vlcli.models.momentum import Lesson, MomentumTeacher
from vlcli.models.patch_mask import masked_features
from vlcli.models.r2d2 import Pairs, TextStates, image_states
from vlcli.objectives.contrastive import positive_targets, soft_cross_entropy
from vlcli.objectives.feature_distillation import feature_distillation_loss
from vlcli.objectives.masked_language import masked_language_loss, masked_places
from vlcli.objectives.matching import Chosen, Sum, hard_negatives, matching_loss
from vlcli.objectives.momentum import Queue, target_distillation_loss
from vlcli.schemas.objectives import R2D2ObjectiveConfig
from vlcli.training.gather import gather, gather_texts
from vlcli.training.loader import TrainingBatch
from vlcli.training.processes import mean, world_size

WORDS, PATCHES = -1, -2  # places of what is drawn from a pair's key, beside those of dropout layers, from 1
_PAIR = 0x5851F42D4C957F2D  # odd: makes one key of two


class Sides(NamedTuple):
    """A process's share of a batch as the student sees it. hidden (n, n2, c) of the whole texts; text and image
    (n, d) in the joint space, normalised; seen (n, 1 + n1, c) of the images."""

    hidden: Tensor
    text: Tensor
    image: Tensor
    seen: Tensor | None


class Masked(NamedTuple):
    """The texts with some of their words hidden: places (n, n2) bool, hidden states (n, n2, c), vector (n, d)."""

    places: Tensor
    hidden: Tensor
    vector: Tensor


class R2D2Objective:
    """`objective(model, batch, step)` → a dict, of which every key that ends in `_loss` is summed.

    `model` may be wrapped for many processes. Mean over processes, as DDP takes it, loss and gradients are those of one
    process on the global batch: but with `matching.scope = "local"`, where they are those of one process that looks for
    hard negatives share by share. `teacher`, `queue` and `centres` are its state.
    """

    def __init__(self, model: DualEncoder, config: R2D2ObjectiveConfig, *, seed: int) -> None:
        self.student, self.config, self.seed = model, config, seed
        self.teacher = MomentumTeacher(model) if config.teaches else None
        target, device, dim = config.target_distillation, model.device, model.config.dim
        self.queue = (
            Queue(target.queue, dim, 3, decay=target.decay, device=device)
            if target.enabled and target.queue
            else None
        )
        self.centres = {side: torch.zeros(dim, device=device) for side in ("image", "text")}
        self.masks = config.masked_language.weight > 0 or config.feature_distillation.weight > 0
        if self.masks and not hasattr(model.tokenizer, "mask_id"):
            raise UsageError(
                "the tokenizer has no [MASK], which masked words and feature distillation want",
                remedy="--set model.text.tokenizer=wordpiece-zh",
            )

    def __call__(self, model: Any, batch: TrainingBatch, step: int) -> dict[str, Tensor]:
        return model(through=lambda student: self._parts(student, batch, step))

    def _parts(self, model: DualEncoder, batch: TrainingBatch, step: int) -> dict[str, Tensor]:
        config = self.config
        features = batch.features
        if features is None:
            assert batch.pixels is not None
            features = model.image_features(batch.pixels)
        hidden = model.text_states(batch.ids, batch.mask, batch.keys)
        sides = Sides(
            hidden,
            F.normalize(model.text_vector(hidden, batch.ids, batch.mask, batch.keys).float(), dim=-1),
            F.normalize(model.image_vector(features, batch.keys).float(), dim=-1),
            None if model.ranking is None else image_states(features),
        )
        lesson = None
        if self.teacher is not None:
            lesson = self.teacher(features, batch.ids, batch.mask, batch.pixels)
        masked = self._masked(model, batch) if self.masks else None
        with _in_full(batch):
            parts = {"pre_ranking_loss": self._pre_ranking(model, sides, lesson, batch)}
        if model.ranking is not None:
            parts |= self._ranking(model, sides, masked, batch, step)
        if config.feature_distillation.weight:
            assert lesson is not None
            assert masked is not None
            parts["features_loss"] = self._features(model, lesson, masked, features, batch)
        return parts

    def _masked(self, model: DualEncoder, batch: TrainingBatch) -> Masked:
        """Which words are hidden depends on (seed, epoch, id) alone."""
        ids, mask, tokenizer = batch.ids, batch.mask, model.tokenizer
        maskable = mask & (ids != tokenizer.cls_id) & (ids != tokenizer.sep_id)
        scores = levels(batch.keys, WORDS, ids.shape).double()
        share = (
            self.config.masked_language.share
            if self.config.masked_language.weight
            else self.config.feature_distillation.share
        )
        places = masked_places(maskable, scores, share)
        mask_id: int = getattr(tokenizer, "mask_id")  # noqa: B009
        hidden_ids = ids.masked_fill(places, mask_id)
        hidden = model.text_states(hidden_ids, mask, batch.keys)
        return Masked(places, hidden, model.text_vector(hidden, hidden_ids, mask, batch.keys))

    def _pre_ranking(
        self, model: DualEncoder, sides: Sides, lesson: Lesson | None, batch: TrainingBatch
    ) -> Tensor:
        """L_GCPR (Eq 1–2), or L_GCPR^TgD (Eq 4–5)."""
        config, scale, local = self.config.target_distillation, model.scale(), batch.local
        images, texts = gather(sides.image), gather(sides.text)
        positives = positive_targets(
            *zip(batch.codes[:, local], batch.codes, strict=True)
        )  # the same both ways
        count = rows_of(batch)
        if not config.enabled:
            i2t = soft_cross_entropy(scale * sides.image @ texts.T, positives, count=count)
            return (i2t + soft_cross_entropy(scale * sides.text @ images.T, positives, count=count)) / 2
        assert lesson is not None
        taught = Lesson(*(F.normalize(x.float(), dim=-1) for x in lesson))
        old_images, old_texts = gather(taught.image), gather(taught.text)
        if config.columns == "momentum":
            images, texts = old_images, old_texts
        excluded = torch.zeros_like(positives)
        weights = torch.ones(positives.shape[1], device=positives.device)
        if self.queue is not None:
            queue = self.queue
            images, texts = torch.cat([images, queue.images]), torch.cat([texts, queue.texts])
            positives = F.pad(positives, (0, queue.size))
            excluded = torch.cat([excluded, queue.out_of_play(batch.codes[:, local])], 1)
            weights = torch.cat([weights, queue.weights])
        halves = [
            target_distillation_loss(
                scale * mine @ columns.T,
                scale.detach() * momentum @ columns.detach().T,
                positives,
                excluded,
                weights,
                alpha=config.alpha,
                count=count,
            )
            for mine, momentum, columns in (
                (sides.image, taught.image, texts),
                (sides.text, taught.text, images),
            )
        ]
        if self.queue is not None:
            self.queue.push(old_images, old_texts, batch.codes)
        return (halves[0] + halves[1]) / 2

    def _ranking(
        self, model: DualEncoder, sides: Sides, masked: Masked | None, batch: TrainingBatch, step: int
    ) -> dict[str, Tensor]:
        """L_FGR (Eq 3) and L_MLM, from one pass of the positives where training is enhanced."""
        matching, words = self.config.matching, self.config.masked_language
        assert model.ranking is not None
        assert sides.seen is not None
        enhanced = bool(words.weight) and words.enhanced
        assert masked is not None or not words.weight
        read = masked.hidden if enhanced and masked is not None else sides.hidden
        n = len(read)
        hard_text, hard_image = self._negatives(model, sides, batch, step)
        pool = self._pool(read, sides, batch)
        own, texts, columns = pool.own, hard_text.column, hard_image.column
        first = torch.arange(n, device=read.device)
        # own text and image, a hard text and the own image, the own text and a hard image; each text and image is read
        # once for all of its pairs
        if enhanced and not words.masked_negatives:
            plain = self._pool(sides.hidden, sides, batch)
            kept, at = torch.cat([texts, own]).unique(return_inverse=True)
            states = torch.cat([pool.hidden[own], plain.hidden[kept]])
            mask = torch.cat([pool.mask[own], plain.mask[kept]])
            text_keys = torch.cat([batch.keys, pool.keys[kept]])
            of_texts = torch.cat([first, at + n])
        else:
            kept, at = torch.cat([own, texts]).unique(return_inverse=True)
            states, mask, text_keys = pool.hidden[kept], pool.mask[kept], pool.keys[kept]
            of_texts = torch.cat([at, at[:n]])
        looked, at = torch.cat([own, columns]).unique(return_inverse=True)
        pairs = Pairs(of_texts, torch.cat([at[:n], at[:n], at[n:]]))
        image_keys = pool.keys[looked]
        keys = text_keys[pairs.texts] + _PAIR * (image_keys[pairs.images] - text_keys[pairs.texts])
        ranked = model.ranking(
            TextStates(states, mask),
            pool.seen[looked],
            pairs,
            text_keys=text_keys,
            image_keys=image_keys,
            keys=keys,
        )
        labels = (torch.arange(3 * n, device=read.device) < n).long()
        counted = torch.cat([torch.ones_like(hard_text.found), hard_text.found, hard_image.found])
        loss = matching_loss(
            ranked.text_logits,
            ranked.image_logits,
            labels,
            counted,
            positive_weight=matching.positive_weight,
        )
        parts = {"matching_loss": matching.weight * mean_of(loss)}
        if words.weight:
            assert masked is not None
            assert model.ranking.mask_head is not None
            if enhanced:
                guessed = ranked.hidden[:n, : masked.places.shape[1]]
            else:
                guessed = model.ranking.read_texts(
                    TextStates(masked.hidden, batch.mask),
                    sides.seen,
                    Pairs(first, first),
                    text_keys=batch.keys,
                    keys=batch.keys,
                )
            logits = model.ranking.mask_head(guessed[masked.places], model.word_table)
            found = masked_language_loss(logits, batch.ids[masked.places])
            parts["words_loss"] = words.weight * mean_of(found)
        return parts

    def _negatives(
        self, model: DualEncoder, sides: Sides, batch: TrainingBatch, step: int
    ) -> tuple[Chosen, Chosen]:
        """A text of every image and an image of every text, by row of what `_pool` gives."""
        config, local = self.config.matching, batch.local
        columns = slice(None) if config.scope == "global" else local
        with torch.no_grad(), _in_full(batch):
            scale = model.scale()
            texts, images = sides.text, sides.image
            if config.scope == "global":
                texts, images = gather(texts), gather(images)
            codes = batch.codes[:, columns]
            positives = positive_targets(*zip(batch.codes[:, local], codes, strict=True))
            draws: list[Tensor | None] = [None, None]
            if config.negatives == "multinomial":
                drawn = np.random.default_rng([self.seed, step, 3]).random((2, batch.codes.shape[1]))
                draws = list(torch.from_numpy(drawn).to(positives.device)[:, local])
            return (
                hard_negatives(scale * sides.image @ texts.T, positives, draws[0]),
                hard_negatives(scale * sides.text @ images.T, positives, draws[1]),
            )

    def _pool(self, read: Tensor, sides: Sides, batch: TrainingBatch) -> _Pool:
        """What negatives are taken from: the process's own share, or everybody's."""
        assert sides.seen is not None
        if self.config.matching.scope == "local" or world_size() == 1:
            rows = torch.arange(len(read), device=read.device)
            return _Pool(read, batch.mask, sides.seen, batch.keys, rows)
        texts = gather_texts(TextTokens(read, batch.mask, batch.mask, None))
        assert texts.tokens is not None
        rows = torch.arange(batch.local.start, batch.local.stop, device=read.device)
        return _Pool(texts.tokens, texts.mask, gather(sides.seen), gather(batch.keys), rows)

    def _features(
        self,
        model: DualEncoder,
        lesson: Lesson,
        masked: Masked,
        features: ImageFeatures,
        batch: TrainingBatch,
    ) -> Tensor:
        """L_FgD (Eq 6–7): half of it from either side that is on."""
        config = self.config.feature_distillation
        students = {"text": (masked.vector, lesson.text)}
        if config.image == "patches":
            assert batch.pixels is not None
            assert model.patch_mask is not None
            every = torch.ones(features.tokens.shape[:2], dtype=torch.bool, device=batch.keys.device)
            scores = levels(batch.keys, PATCHES, every.shape).double()
            places = masked_places(every, scores, config.share)
            partial = masked_features(model.image, batch.pixels, places, model.patch_mask)
            students["image"] = (model.image_vector(partial, batch.keys), lesson.image)
        loss = torch.zeros((), device=batch.keys.device)
        for side, (student, teacher) in students.items():
            teacher = teacher.float()
            loss = loss + feature_distillation_loss(
                student,
                teacher,
                self.centres[side],
                student_temperature=config.student_temperature,
                teacher_temperature=config.teacher_temperature,
                count=rows_of(batch),
            )
            self.centres[side] = self.centres[side].lerp(
                mean(teacher.sum(0) / rows_of(batch)), 1 - config.centre_momentum
            )
        return config.weight * loss / 2

    def stepped(self) -> None:
        """After a step of the optimizer."""
        if self.teacher is not None:
            self.teacher.follow(self.config.momentum)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"centres": dict(self.centres)}
        if self.teacher is not None:
            state["teacher"] = self.teacher.state_dict()
        if self.queue is not None:
            state["queue"] = self.queue.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.centres = {side: x.to(self.student.device) for side, x in state["centres"].items()}
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        if self.queue is not None:
            self.queue.load_state_dict(state["queue"])


class _Pool(NamedTuple):
    hidden: Tensor  # (a, n2, c)
    mask: Tensor  # (a, n2)
    seen: Tensor  # (a, 1 + n1, c)
    keys: Tensor  # (a,)
    own: Tensor  # (n,) the process's own rows


def _in_full(batch: TrainingBatch) -> Any:
    """Similarities are compared in float32, whatever the towers compute in."""
    return torch.autocast(batch.keys.device.type, enabled=False)


def rows_of(batch: TrainingBatch) -> float:
    """What a sum over a process's own rows is divided by, such that the mean over processes, as DDP takes it, is the
    mean over the global batch: shares may differ."""
    return batch.codes.shape[1] / world_size()


def mean_of(loss: Sum) -> Tensor:
    """A process's share of the mean over all processes' rows, such that the mean of these shares, as DDP takes it, is
    the mean; 0 where nothing counts."""
    weight = mean(loss.weight)
    return loss.value / torch.where(weight > 0, weight, 1.0)

"""How well a student speaks: its distance from the teacher, and sentences found from English and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vlcli.curation.parallel_text import ENGLISH, Pair
from vlcli.models.text_encoder import TextEncoder
from vlcli.training.teacher import Table, TeacherVectors

BATCH = 256
BLOCK = 1024

Encode = Callable[[Sequence[str]], np.ndarray]


class ParallelValidation:
    """`validation(student)` on pairs held in memory, for each language, and their mean.

    `loss` is the mean squared error against the teacher's vector of the English sentence. `from_en` and `to_en` are
    R@1 in percent, by cosine, among the language's different sentences; a sentence that stands for several is right
    with any. `teacher` has the same recalls of the teacher's own vectors, where it can be asked for other languages.
    """

    def __init__(self, pairs: Sequence[Pair], vectors: TeacherVectors) -> None:
        self._pairs: dict[str, list[Pair]] = {}
        for pair in pairs:
            self._pairs.setdefault(pair.lang, []).append(pair)
        self._vectors = vectors
        self._teacher: dict[str, Any] | None = None

    def prepare(self) -> None:
        """Ask the teacher for all English sentences, so that one without a vector is told before the first step."""
        for pairs in self._pairs.values():
            self._vectors.of([pair.teacher for pair in pairs])

    def teacher(self) -> dict[str, Any]:
        """The teacher's recalls, computed once."""
        if self._teacher is None:
            asked = not isinstance(self._vectors.teacher, Table)
            self._teacher = {lang: self._recalls(lang, self._vectors.of) for lang in self._pairs if asked}
        return self._teacher

    def __call__(self, student: TextEncoder) -> dict[str, Any]:
        """{"loss", "R@1", "languages": {…}}; the student returns to training."""
        student.eval()
        try:
            found = {lang: self._of_language(lang, student) for lang in self._pairs}
        finally:
            student.train()
        recalls = [one[side] for one in found.values() for side in ("from_en", "to_en") if side in one]
        return {
            "loss": _mean([one["loss"] for one in found.values()]),
            "R@1": _mean(recalls) if recalls else None,
            "languages": found,
        }

    def _of_language(self, lang: str, student: TextEncoder) -> dict[str, Any]:
        pairs = self._pairs[lang]
        target = self._vectors.of([pair.teacher for pair in pairs])
        said = encoded(student, [pair.student for pair in pairs])
        found = {"pairs": len(pairs), "loss": float(np.mean((said - target) ** 2))}
        found |= self._recalls(lang, lambda texts: encoded(student, texts))
        if teacher := self.teacher().get(lang):
            found["teacher"] = teacher
        return found

    def _recalls(self, lang: str, encode: Encode) -> dict[str, float]:
        return {} if lang == ENGLISH else cross_language(self._pairs[lang], encode)


def cross_language(pairs: Sequence[Pair], encode: Encode) -> dict[str, float]:
    """R@1 from English to the other language and back, in percent, by cosine among the different sentences."""
    here = {text: i for i, text in enumerate(dict.fromkeys(pair.teacher for pair in pairs))}
    there = {text: i for i, text in enumerate(dict.fromkeys(pair.student for pair in pairs))}
    right = {(here[pair.teacher], there[pair.student]) for pair in pairs}
    english, other = _unit(encode(list(here))), _unit(encode(list(there)))
    found = (
        list(enumerate(_nearest(english, other))),
        [(i, j) for j, i in enumerate(_nearest(other, english))],
    )
    from_en, to_en = (100 * sum(pair in right for pair in side) / len(side) for side in found)
    return {"from_en": from_en, "to_en": to_en}


def _nearest(queries: np.ndarray, gallery: np.ndarray) -> list[int]:
    """The best of the gallery for each query, a block of queries at a time."""
    blocks = (queries[start : start + BLOCK] @ gallery.T for start in range(0, len(queries), BLOCK))
    return [int(best) for block in blocks for best in block.argmax(1)]


@torch.inference_mode()
def encoded(student: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """(n, width) float32 of sentences, in evaluation mode."""
    parts = []
    for start in range(0, len(texts), BATCH):
        parts.append(student(*student.tokenize(texts[start : start + BATCH])).float().cpu().numpy())
    return np.concatenate(parts)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

"""BLEU-1 to 4 as coco-caption computes them: the length of the closest reference, tiny numbers against zeros.

[Papineni et al. 2002]. The score of a corpus is not the mean of its captions' scores: counts are summed first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlcli.evaluation.caption_metrics.corpus import ORDERS, Corpus, found_in

Floats = npt.NDArray[np.float64]
TINY, SMALL = 1e-15, 1e-9  # coco-caption's: a precision of 0 / 0 is 1e-6


class Counts(NamedTuple):
    """What BLEU is made of, for each caption."""

    length: Floats  # (n,) words
    closest: Floats  # (n,) words of the reference whose length is closest; of two the shorter
    guessed: Floats  # (n, 4) n-grams of each order
    correct: Floats  # (n, 4) those of them that a reference has, each as often as one reference has it


def counts(corpus: Corpus) -> Counts:
    """The counts of every caption."""
    n = corpus.images
    off = np.abs(corpus.reference_length - corpus.length[corpus.image])
    first = np.lexsort(
        (corpus.reference_length, off, corpus.image)
    )  # by image; of it the closest, then shorter
    starts = np.searchsorted(corpus.image, np.arange(n))
    closest = corpus.reference_length[first[starts]]
    guessed = np.maximum(0, corpus.length[:, None] - np.arange(ORDERS))
    correct = np.zeros((n, ORDERS))
    for order, (ours, theirs) in enumerate(corpus.grams):
        keys = corpus.image[theirs.sentence] * theirs.distinct + theirs.gram
        known, where = np.unique(keys, return_inverse=True)
        most = np.zeros(len(known), dtype=np.int64)
        np.maximum.at(most, where, theirs.times)
        hit, place = found_in(ours.sentence * ours.distinct + ours.gram, known)
        clipped = np.minimum(ours.times[hit], most[place[hit]])
        correct[:, order] = np.bincount(ours.sentence[hit], clipped, n)
    return Counts(
        corpus.length.astype(np.float64), closest.astype(np.float64), guessed.astype(np.float64), correct
    )


def of_captions(found: Counts) -> Floats:
    """(n, 4) BLEU-1 to 4 of each caption alone, 0 to 1."""
    return _bleu(found.length, found.closest, found.guessed, found.correct)


def of_corpus(found: Counts, weights: Floats | None = None) -> Floats:
    """(4,) BLEU-1 to 4 of all captions, of which each counts `weights` times (once), 0 to 1."""
    w = np.ones(len(found.length)) if weights is None else weights
    return _bleu(w @ found.length, w @ found.closest, w @ found.guessed, w @ found.correct)


def _bleu(length: Floats, closest: Floats, guessed: Floats, correct: Floats) -> Floats:
    precision = (correct + TINY) / (guessed + SMALL)
    bleu = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + TINY) / (closest + SMALL)
    with np.errstate(over="ignore"):
        brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return bleu * brevity[..., None]

"""Every number of a set of captions, and how far each would have come out otherwise on other images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlcli.errors import UsageError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.caption_metrics import bleu, meteor
from vlcli.evaluation.caption_metrics.cider import cider
from vlcli.evaluation.caption_metrics.corpus import Corpus
from vlcli.evaluation.caption_metrics.rouge_l import rouge_l
from vlcli.evaluation.caption_metrics.segment import segment

Floats = npt.NDArray[np.float64]
METRICS = ("bleu", "rougeL", "cider", "meteor")


def names_of(tokenizers: Sequence[str]) -> list[str]:
    """The names of all numbers, in their order."""
    words = [
        f"{metric}_{tokenizer}"
        for tokenizer in tokenizers
        for metric in ("bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "cider")
    ]
    return [*words, "meteor_char"]


@dataclass(frozen=True)
class CaptionScores:
    """Numbers by name, `bleu4_char`, ×100 as papers print them (CIDEr-D therefore 0 to 1000).

    corpus: of the set. ci95: [low, high] of each. images: (n,) of each caption. Of BLEU the number of the set is not
    the mean of its captions'. empty: how many captions have no word; they score 0.
    """

    corpus: dict[str, float]
    ci95: dict[str, list[float]]
    images: dict[str, Floats]
    empty: int


@dataclass(frozen=True)
class _Part:
    """Some numbers: of each caption, and of the captions when each counts with its weight."""

    names: tuple[str, ...]
    images: Floats  # (n, numbers), 0 to 1
    of_weights: Callable[[Floats], Floats]  # (n,) → (numbers,)


def score_captions(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizers: Sequence[str] = ("char", "jieba"),
    metrics: Sequence[str] = METRICS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> CaptionScores:
    """The numbers of `captions`, of each of which `references` has one text or more.

    metrics: of METRICS. bootstrap: resamples of images for the 95 % intervals, 0 for none; CIDEr's document frequencies
    stay those of the whole set, and with them each caption's score. Raises UsageError for an unknown tokenizer or
    metric, or nothing to score.
    """
    if not captions:
        raise UsageError("no caption to score")
    if unknown := set(metrics) - set(METRICS):
        raise UsageError(f"no metric {min(unknown)!r} of captions", remedy=f"choose of {', '.join(METRICS)}")
    parts = [part for tokenizer in tokenizers for part in _by_words(captions, references, tokenizer, metrics)]
    if "meteor" in metrics:
        stats = meteor.meteor_stats(captions, references)
        parts.append(
            _Part(
                ("meteor_char",),
                meteor.of_captions(stats)[:, None],
                lambda w: np.array([meteor.of_corpus(stats, w)]),
            )
        )
    names = [name for part in parts for name in part.names]

    def statistic(weights: Floats) -> Floats:
        return np.concatenate([part.of_weights(weights) for part in parts]) * 100

    bounds = (
        interval(statistic, len(captions), count=bootstrap, seed=seed)
        if bootstrap and len(captions) > 1
        else []
    )
    return CaptionScores(
        corpus={name: float(one) for name, one in zip(names, statistic(np.ones(len(captions))), strict=True)},
        ci95=dict(zip(names, bounds, strict=False)),
        images=dict(zip(names, np.concatenate([part.images for part in parts], axis=1).T * 100, strict=True)),
        empty=sum(not caption.strip() for caption in captions),
    )


def _by_words(
    captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str, metrics: Sequence[str]
) -> list[_Part]:
    """The metrics that need words, as `tokenizer` cuts them."""
    assert len(captions) == len(references)
    flat = segment([text for some in references for text in some], tokenizer)
    at = iter(flat)
    corpus = Corpus(segment(captions, tokenizer), [[next(at) for _ in some] for some in references])
    parts = []
    if "bleu" in metrics:
        counts = bleu.counts(corpus)
        names = tuple(f"bleu{order}_{tokenizer}" for order in range(1, 5))
        parts.append(_Part(names, bleu.of_captions(counts), lambda w: bleu.of_corpus(counts, w)))
    if "rougeL" in metrics:
        parts.append(_mean(f"rougeL_{tokenizer}", rouge_l(corpus.captions, corpus.references)))
    if "cider" in metrics:
        parts.append(_mean(f"cider_{tokenizer}", cider(corpus)))
    return parts


def _mean(name: str, images: Floats) -> _Part:
    return _Part((name,), images[:, None], lambda w: np.array([w @ images / w.sum()]))

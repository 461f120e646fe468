"""METEOR of Chinese captions [Denkowski & Lavie 2014], as coco-caption's `meteor-1.5.jar -l en -norm` sees them.

Told that it reads English, the jar takes Chinese apart into characters, whatever the segmentation, and finds none of
them in its stems, synonyms and paraphrases: what is left is exact matching. Words of Latin letters stay whole and are
lowered; they too are only matched exactly here, and count as content words, so that English captions are another
matter. Punctuation that the jar's list of English function words has weighs less than a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
BEAM = 40
FUNCTION = frozenset("\"$'(),-.:?`")

_PLAIN = str.maketrans("“”‘’—–", "\"\"''--")
_WORD = re.compile(r"[0-9a-z\u00df-\u024f\u0370-\u052f]+(?:[.,][0-9a-z]+)*|\S")
# The cost of a path: fewer matched words, then more chunks, then words farther off, each a digit of one number.
_CHUNK, _MATCH = 1 << 20, 1 << 40


class _Path(NamedTuple):
    """An alignment of the reference up to some word."""

    cost: int
    end: int  # where in the caption the chunk that is open would go on; −1 for none
    used: int  # a bit for each word of the caption
    places: tuple[int, ...]  # what `align` returns, so far


class Stats(NamedTuple):
    """What METEOR is made of, for each caption and the reference that fits it best."""

    length: Floats  # (n,) of the caption, a word weighing DELTA and punctuation 1 − DELTA
    reference: Floats  # (n,) of the reference
    matched: Floats  # (n,) of what is matched, in the same weights
    words: Floats  # (n,) matched words
    chunks: Floats  # (n,) runs of them that stand in the same order in both; 0 where the two are the same


def meteor_words(text: str) -> list[str]:
    """The words that the jar sees: characters; runs of Latin, Greek and Cyrillic letters and digits, lowered."""
    return _WORD.findall(text.translate(_PLAIN).lower())


def meteor_stats(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
    """The counts of every caption with its best reference; of equals the first."""
    rows = []
    for caption, some in zip(captions, references, strict=True):
        words = meteor_words(caption)
        found = np.array([_counted(words, meteor_words(one)) for one in some])
        rows.append(found[_score(*found.T).argmax()])
    return Stats(*np.array(rows).T)


def of_captions(stats: Stats) -> Floats:
    """(n,) of each caption, 0 to 1."""
    return _score(*stats)


def of_corpus(stats: Stats, weights: Floats | None = None) -> float:
    """Of all captions, each counting `weights` times (once): the score of the sums, not the mean of scores. 0 to 1."""
    weights = np.ones(len(stats.length)) if weights is None else weights
    return float(_score(*(np.array([weights @ one]) for one in stats))[0])


def _score(length: Floats, reference: Floats, matched: Floats, words: Floats, chunks: Floats) -> Floats:
    some = matched > 0
    mean = matched / np.where(some, (1 - ALPHA) * length + ALPHA * reference, 1.0)
    return mean * (1 - GAMMA * (chunks / np.where(some, words, 1.0)) ** BETA)


def _counted(words: Sequence[str], reference: Sequence[str]) -> tuple[float, ...]:
    """One row of `Stats`."""
    place = align(words, reference)
    matched = [i for i in place if i >= 0]
    chunks, before = 0, -2
    for i in place:
        chunks += i >= 0 and i != before + 1
        before = i if i >= 0 else -2
    if chunks == 1 and len(matched) == len(words) == len(reference):
        chunks = 0
    return _weight(words), _weight(reference), _weight([words[i] for i in matched]), len(matched), chunks


def _weight(words: Sequence[str]) -> float:
    light = sum(word in FUNCTION for word in words)
    return DELTA * (len(words) - light) + (1 - DELTA) * light


def align(words: Sequence[str], reference: Sequence[str], beam: int = BEAM) -> list[int]:
    """Of each word of the reference the place of the caption's word that it is matched with, or −1.

    Most words matched, then fewest chunks, then shortest ways: as far as a beam along the reference finds it. A word
    that either has once is matched beforehand.
    """
    where: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        where.setdefault(word, []).append(i)
    times: dict[str, int] = {}
    for word in reference:
        times[word] = times.get(word, 0) + 1
    paths = [_Path(0, -1, 0, ())]
    for j, word in enumerate(reference):
        places = where.get(word, ())
        if len(places) == 1 and times[word] == 1:
            paths = [_taken(path, places[0], j) for path in paths]
            continue
        if not places:
            paths = [_skipped(path) for path in paths]
            continue
        paths.sort(key=itemgetter(0))
        longer = []
        for path in paths[:beam]:
            longer += [_taken(path, i, j) for i in places if not path.used >> i & 1]
            longer.append(_skipped(path))
        paths = longer
    return list(min(map(_skipped, paths), key=itemgetter(0)).places[:-1])


def _taken(path: _Path, i: int, j: int) -> _Path:
    """The path on, the reference's word j matched with the caption's word i."""
    cost = path.cost + abs(i - j) - _MATCH
    if path.end not in (-1, i):
        cost += _CHUNK
    return _Path(cost, i + 1, path.used | 1 << i, (*path.places, i))


def _skipped(path: _Path) -> _Path:
    """The path on, its next word matched with none: a chunk that was open ends."""
    cost = path.cost + _CHUNK if path.end != -1 else path.cost
    return _Path(cost, -1, path.used, (*path.places, -1))

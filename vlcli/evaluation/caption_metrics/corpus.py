"""Captions and their references as numbers: n-grams counted once, for BLEU and CIDEr alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Words = Sequence[str]
Ints = npt.NDArray[np.int64]
ORDERS = 4


class Grams(NamedTuple):
    """The n-grams of one order in some sentences: an entry for each distinct one of a sentence, in ascending order of
    (sentence, gram)."""

    sentence: Ints  # (m,) which sentence, from 0
    gram: Ints  # (m,) which n-gram, a number below `distinct`
    times: Ints  # (m,) how often it stands there
    distinct: int


class Corpus:
    """n captions, each with one or more references, cut into words.

    images: n.  image: (r,) of each of the r references the caption that it belongs to, ascending.
    """

    def __init__(self, captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
        """Raises AssertionError for lists of different lengths or a caption without a reference."""
        assert len(captions) == len(references), "a list of references for each caption"
        assert all(references), "at least one reference for each caption"
        self.captions, self.references = captions, references
        self.images = len(captions)
        self.image = np.repeat(np.arange(self.images), [len(some) for some in references])
        self._sentences = [*captions, *chain.from_iterable(references)]
        lengths = np.array([len(words) for words in self._sentences], dtype=np.int64)
        self.length, self.reference_length = lengths[: self.images], lengths[self.images :]

    @cached_property
    def grams(self) -> list[tuple[Grams, Grams]]:
        """Of each order from 1 to 4: the n-grams of the captions, and those of the references, numbered alike."""
        number: dict[str, int] = {}
        words = list(chain.from_iterable(self._sentences))
        word = np.array([number.setdefault(one, len(number)) for one in words], dtype=np.int64)
        lengths = np.concatenate([self.length, self.reference_length])
        sentence = np.repeat(np.arange(len(lengths)), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(word))  # words from here to the end
        starts, gram, distinct = left >= 1, word, max(1, len(number))
        found = []
        for order in range(1, ORDERS + 1):
            if order > 1:  # an n-gram is one of n − 1 words, and the word after it
                longer = left >= order
                pairs = gram[longer[starts]] * len(number) + word[np.flatnonzero(longer) + order - 1]
                known, gram = np.unique(pairs, return_inverse=True)
                starts, distinct = longer, max(1, len(known))
            found.append(self._counted(sentence[starts], gram, distinct))
        return found

    def _counted(self, sentence: Ints, gram: Ints, distinct: int) -> tuple[Grams, Grams]:
        key, count = np.unique(sentence * distinct + gram, return_counts=True)
        cut = np.searchsorted(key, self.images * distinct)
        sentence, gram = np.divmod(key, distinct)
        ours = Grams(sentence[:cut], gram[:cut], count[:cut], distinct)
        theirs = Grams(sentence[cut:] - self.images, gram[cut:], count[cut:], distinct)
        return ours, theirs


def found_in(keys: Ints, sorted_keys: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Which of `keys` stand in `sorted_keys`, and where (the place of a key that does not is of no meaning)."""
    if not len(sorted_keys):
        return np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=np.int64)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[place] == keys, place

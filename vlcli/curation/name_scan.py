"""Where a name can begin: a quick look at many texts at once, before a segmenter is asked about a few of them.

Most captions hold no family name with plausible given characters after it. Numpy tells so in a microsecond a caption,
by an upper bound of all that the evidence can say for a candidate; what is left is what `names.py` judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlcli.curation.name_tables import UNKNOWN, NameTables

DOTS = "·•・‧"
_SIZE = 0x10000  # code points beyond the basic plane are no letters of names here: all fall on the last one
_END = 6  # line feeds behind the last text (and two before the first): a look beyond stays within the array
_NONE = np.float32(-99.0)

Codes = NDArray[np.uint16]
Places = NDArray[np.intp]
Floats = NDArray[np.float32]
Candidates = tuple[Places, NDArray[np.int64], Floats]  # places, size, what their neighbours can add


@dataclass(frozen=True)
class Bounds:
    """The most that the evidence beyond the spelling can add, in log-odds."""

    least: float  # spelling below this is hopeless
    shape: dict[int, float]  # how words lie on a name of 2 or 3 characters
    before: float  # a title before it
    after: dict[str, float]  # word after it -> what it adds


@dataclass(frozen=True)
class Scan:
    """What one look found in a batch of texts: columns of candidates in order; texts with foreign names."""

    text: list[int]  # place of the text
    start: list[int]  # place of the candidate in it
    size: list[int]  # characters of the candidate
    around: list[float]  # the most that its neighbours can add
    foreign: set[int]  # places of texts that may hold a foreign name


class NameScan:
    def __init__(self, tables: NameTables, bounds: Bounds) -> None:
        self._bounds = bounds
        self._family, self._first, self._second = (self._column(tables, place) for place in range(3))
        for letter in tables.everyday:
            self._family[ord(letter)] -= 2.0
        self._is_family = self._family > UNKNOWN[0]
        self._sound = self._flags(tables.sound)
        self._never = self._flags(tables.never)
        # What the last character of a name says against it, whatever stands before.
        self._last = (-4.0 * self._sound - 8.0 * self._never - 3.0 * self._flags(tables.thing_end)).astype(
            np.float32
        )
        self._verb_end = self._flags(tables.verb_end)
        self._everyday = self._flags(tables.everyday)
        self._before = np.zeros(_SIZE, np.float32)  # by the last character before: titles of one, and colons
        for word in tables.title_before | set("：:"):
            if len(word) == 1:
                self._before[ord(word)] = bounds.before
        self._before_pairs = _Pairs({word[-2:]: bounds.before for word in tables.title_before if word[1:]})
        self._after = np.zeros(_SIZE, np.float32)
        pairs: dict[str, float] = {}
        for word, bonus in sorted(bounds.after.items(), key=lambda item: item[1]):
            if len(word) == 1:
                self._after[ord(word)] = bonus
            else:
                pairs[word[:2]] = bonus
        self._after_pairs = _Pairs(pairs)
        self._compound_first = self._flags({name[0] for name in tables.compound})
        self._compound = _Pairs(dict.fromkeys(tables.compound, 1.0))
        self._foreign_first = self._flags({name[0] for name in tables.famous} | set(DOTS))
        self._famous = _Pairs({name[:2]: 1.0 for name in tables.famous})
        self._dot = self._flags(DOTS)

    @staticmethod
    def _column(tables: NameTables, place: int) -> Floats:
        """Log-odds by code point: -99 where the character is not Han."""
        column = np.full(_SIZE, _NONE, np.float32)
        column[0x3400:0x4DC0] = column[0x4E00:0xA000] = UNKNOWN[place]
        for letter, odds in tables.characters.items():
            column[ord(letter)] = odds[place]
        return column

    @staticmethod
    def _flags(letters: Sequence[str] | set[str] | frozenset[str]) -> NDArray[np.bool_]:
        flags = np.zeros(_SIZE, np.bool_)
        flags[[ord(letter) for letter in letters]] = True
        return flags

    def scan(self, texts: Sequence[str]) -> Scan:
        """One look at all `texts`; nothing that a judge of single candidates would accept is left out."""
        joined = "\n".join(["\n", *texts]) + "\n" * _END
        wide = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        codes = np.minimum(wide, _SIZE - 1).astype(np.uint16)
        begins = np.cumsum(
            [2, *(len(text) + 1 for text in texts)]
        )  # of each text, and of what follows the last
        at, size, around = (
            np.concatenate(parts) for parts in zip(*self._single(codes), *self._double(codes), strict=True)
        )
        order = np.lexsort((size, at))
        at, size, around = at[order], size[order], around[order]
        text = np.searchsorted(begins, at, "right") - 1
        foreign = np.searchsorted(begins, self._others(codes), "right") - 1
        start = at - begins[text]
        return Scan(text.tolist(), start.tolist(), size.tolist(), around.tolist(), set(foreign.tolist()))

    def _single(self, codes: Codes) -> list[Candidates]:
        """Candidates with a family name of one character."""
        at = np.flatnonzero(self._is_family[codes])
        zero, one, two = codes[at], codes[at + 1], codes[at + 2]
        family = self._family[zero]
        given_1 = (self._first[one] + self._second[one]) / 2 + self._last[one]
        given_1 -= 2.5 * (self._verb_end[one] & self._everyday[zero])
        given_2 = self._first[one] + self._second[two] + self._last[two] - 2.5 * self._verb_end[two]
        given_2 -= 8.0 * (self._never[one] & ~self._never[two])
        given_2 -= 4.0 * (self._sound[one] & ~self._sound[two])
        return [
            self._hopeful(codes, at, family + given, size) for size, given in ((2, given_1), (3, given_2))
        ]

    def _double(self, codes: Codes) -> list[Candidates]:
        """Those with a family name of two characters; few, so that spelling need not thin them out."""
        at = np.flatnonzero(self._compound_first[codes])
        at = at[self._compound.of(codes, at) > 0]
        at = at[self._first[codes[at + 2]] > _NONE]
        longer = at[self._first[codes[at + 3]] > _NONE]
        return [
            (place, np.full(len(place), size), self._around(codes, place, size))
            for size, place in ((3, at), (4, longer))
        ]

    def _hopeful(self, codes: Codes, at: Places, odds: Floats, size: int) -> Candidates:
        """Those of `at` with a chance; a hair's breadth is left for single precision."""
        bounds = self._bounds
        most = bounds.before + max(bounds.after.values(), default=0.0)
        floor = max(bounds.least, -bounds.shape[size] - most) - 1e-3
        likely = odds > floor
        at, odds = at[likely], odds[likely]
        around = self._around(codes, at, size)
        likely = odds + around > -bounds.shape[size] - 1e-3
        return at[likely], np.full(int(likely.sum()), size), around[likely]

    def _around(self, codes: Codes, at: Places, size: int) -> Floats:
        """The most that the words before and after can add, by the characters that they would begin or end with."""
        before = np.maximum(self._before[codes[at - 1]], self._before_pairs.of(codes, at - 2))
        return before + np.maximum(self._after[codes[at + size]], self._after_pairs.of(codes, at + size))

    def _others(self, codes: Codes) -> Places:
        """Middle dots, and first characters of names that stand alone."""
        at = np.flatnonzero(self._foreign_first[codes])
        return at[self._dot[codes[at]] | (self._famous.of(codes, at) > 0)]


class _Pairs:
    """A number for some pairs of characters, 0 for all others."""

    def __init__(self, values: Mapping[str, float]) -> None:
        keys = {(ord(pair[0]) << 16) + ord(pair[1]): value for pair, value in values.items()}
        self._keys = np.array([*sorted(keys), 0xFFFFFFFF], np.uint32)
        self._values = np.array([*(keys[key] for key in sorted(keys)), 0.0], np.float32)

    def of(self, codes: Codes, at: Places) -> Floats:
        pairs = (codes[at].astype(np.uint32) << 16) + codes[at + 1]
        place = np.searchsorted(self._keys, pairs)
        return self._values[place] * (self._keys[place] == pairs)

"""From spans that one look finds to a text in which no look finds another: what all maskers share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from vlcli.text.wordpiece import NAME_TOKEN

Span = tuple[int, int]  # start, end
LONGEST = 2048  # characters that are looked at as one text; longer ones are cut
_TOGETHER = 1024  # texts, or parts of a long one, that are looked at together
_SURROGATE = re.compile("[\ud800-\udfff]")
_BREAK = re.compile(r"[^一-鿿㐀-䶿\w·•・‧.]")


class Masker(ABC):
    """Finds and masks names; a subclass says how one look at a batch of texts finds them."""

    token = NAME_TOKEN

    @abstractmethod
    def look(self, texts: Sequence[str]) -> list[list[Span]]:
        """Disjoint spans of each text, left to right; no text is longer than LONGEST."""

    def mask(self, texts: Sequence[str]) -> list[str]:
        """The texts with every name replaced by the token. Masking a masked text changes nothing."""
        return [replace(text, spans) for text, spans in zip(texts, self.find(texts), strict=True)]

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """(start, end) of each name in each text, in order: what `mask` replaces.

        A name that goes changes what is a word beside it, so texts with one are looked at until none is found.
        """
        found: list[list[Span]] = [[] for _ in texts]
        waiting: Sequence[int] = range(len(texts))
        here: Sequence[str] = texts  # as they stand now
        while waiting:
            left, changed = [], []
            for place, text, spans in zip(waiting, here, self.look_anywhere(here), strict=True):
                if spans:
                    found[place] = merge(found[place], spans)
                    left.append(place)
                    changed.append(replace(text, spans))
            waiting, here = left, changed
        return found

    def look_anywhere(self, texts: Sequence[str]) -> list[list[Span]]:
        """`look`, for texts of any length, a bounded number of characters at a time."""
        found: list[list[Span]] = []
        for first in range(0, len(texts), _TOGETHER):
            some = texts[first : first + _TOGETHER]
            if max(map(len, some)) <= LONGEST:
                found += self._look(some)
            else:
                found += map(self._look_in_parts, some)
        return found

    def _look_in_parts(self, text: str) -> list[Span]:
        cuts = _cut(text)
        spans: list[Span] = []
        for first in range(0, len(cuts), _TOGETHER):
            some = cuts[first : first + _TOGETHER]
            looked = self._look([text[start:end] for start, end in some])
            for (at, _), part in zip(some, looked, strict=True):
                spans += [(start + at, end + at) for start, end in part]
        return spans

    def _look(self, texts: Sequence[str]) -> list[list[Span]]:
        try:
            return self.look(texts)
        except UnicodeEncodeError:  # half a surrogate pair: no letter, and segmenters do not take it
            return self.look([_SURROGATE.sub("\ufffd", text) for text in texts])


def _cut(text: str) -> list[Span]:
    """The text in parts of at most LONGEST characters, cut at punctuation where there is some."""
    if len(text) <= LONGEST:
        return [(0, len(text))]
    cuts, done = [], 0
    while len(text) - done > LONGEST:
        breaks = [m.end() for m in _BREAK.finditer(text, done + LONGEST // 2, done + LONGEST)]
        end = breaks[-1] if breaks else done + LONGEST
        cuts.append((done, end))
        done = end
    return [*cuts, (done, len(text))]


def replace(text: str, spans: Sequence[Span]) -> str:
    """The text with the token in the place of each span."""
    if not spans:
        return text
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += [text[done:start], NAME_TOKEN]
        done = end
    return "".join([*parts, text[done:]])


def merge(masked: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """`spans` of the text in which `masked` is replaced, told as places of the original, among `masked`."""
    merged: list[Span] = []
    shift = 0  # from here to the original
    waiting = list(reversed(masked))
    for start, end in spans:
        while waiting and waiting[-1][0] - shift < end:
            first, last = waiting.pop()
            merged.append((first, last))
            shift += last - first - len(NAME_TOKEN)
        merged.append((start + shift, end + shift))
    return [*merged, *reversed(waiting)]

"""Person names by a network, LAC, and by the rules of `names.py`: each corrects what the other is known to get wrong.

The network reads context, and so finds names that no table foresees. But it runs over a name's end into a title
(白居易琵琶行), joins two names, takes a name for a part of a place (彭德怀纪念馆), and idioms and plants for persons.
So its certainty is one voice beside spelling, dictionary and neighbours; its ends are moved where the rules see another
end or the dictionary a word across; and what only the rules see counts when the network does not speak against it much.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from vlcli.curation.lac import PERSON, Lac, Tagged
from vlcli.curation.name_spans import LONGEST, NAME_TOKEN, Masker, Span
from vlcli.curation.name_tables import NameTables, load_tables
from vlcli.curation.names import NameMasker, Weighed

# Log-odds that speak for and against; a sum above 0 is a name. Set on the tuning half of the test list.
_NETWORK_ALONE = -1.0  # what a span that the network calls a person needs
_SPELLING = 0.2  # ... of the log-odds of its spelling, where it is written as Chinese names are
_TITLE = 1.0  # ... a word beside it says that a person is named
_OTHER_WORD = -1.0  # ... the dictionary has it as a common noun, a verb, ...
_NOT_NAME = -3.0  # ... it is listed as none
_SURE = 2.5  # how sure the network must be of characters that a word of the dictionary takes away
_TAIL = 0.0  # ... of those behind the end that the rules see
_RULES_ALONE = -1.0  # what a span that only the rules see needs
_DISSENT = 1.0  # ... of what the network says against it
_LEAST_HONOURED = 2.0
_SINGLE, _NAME, _NAME_LIKE_WORD, _WORD_LIKE_NAME = -3.0, -1.0, -3.0, -2.0  # what a long span is made of
_NEVER = -99.0
_MAYBE_NAMES = ("nr", "nrfg", "nrt", "ns", "nz", "j")  # tags that the dictionary gives to names of persons
_JOINS = "和与及在是的"
_BRANDS = ("牌", "品牌")  # behind a name: it is that of a brand
_HONOUR = re.compile("([一-鿿]{2,4})(?:庙|祠|墓|陵园|故居|旧居|故里|纪念馆|纪念堂|塑像|雕像|铜像)+")
_SPELT = re.compile(r"\w[\w·•・‧.\-'’ ]*")
_HAN = re.compile("[一-鿿㐀-䶿]+")


class ModelMasker(Masker):
    """Finds and masks names by LAC and rules; one instance serves a process (0.5 s to make)."""

    def __init__(self, tables: NameTables | None = None) -> None:
        self._tables = tables or load_tables()
        self._lac = Lac()
        self._rules = NameMasker(self._tables)
        self._no_name = self._tables.compound | self._tables.not_names
        self._stuck = self._tables.verb_end | self._tables.thing_end  # what sticks to a name's end

    def look_anywhere(self, texts: Sequence[str]) -> list[list[Span]]:
        """Texts too long for captions go by the rules alone: the network would take minutes for megabytes."""
        is_long = [len(text) > LONGEST for text in texts]
        long = iter(
            self._rules.look_anywhere([text for text, yes in zip(texts, is_long, strict=True) if yes])
        )
        rest = iter(
            super().look_anywhere([text for text, yes in zip(texts, is_long, strict=True) if not yes])
        )
        return [next(long if yes else rest) for yes in is_long]

    def look(self, texts: Sequence[str]) -> list[list[Span]]:
        weighed = self._rules.weigh(texts)
        return [
            self._both(text, tagged, sure)
            for text, tagged, sure in zip(texts, self._lac.tag(texts), weighed, strict=True)
        ]

    def _both(self, text: str, tagged: Tagged, rules: Sequence[Weighed]) -> list[Span]:
        spans: list[Span] = []

        def add(start: int, end: int) -> None:
            if not any(first < end and start < last for first, last in spans):
                spans.append((start, end))

        reading = _Reading(text, tagged, rules, [], [])
        for start, end, kind in tagged.words:
            if named := self._honoured(text[start:end]):
                add(start, start + named)
            elif kind == PERSON:
                for span in self._person(reading, start, end):
                    add(*span)
        for start, end, odds in rules:
            dissent = min(reading.person(start, end), 0.0)
            if odds + _DISSENT * dissent + _RULES_ALONE > 0:
                add(start, end)
        return sorted(spans)

    def _person(self, reading: _Reading, start: int, end: int) -> list[Span]:
        """What remains of a span that the network calls a person."""
        tables, has_word = self._tables, self._rules.has_word
        text = reading.text
        if text[start - 1 : start] == NAME_TOKEN[0] or not _SPELT.fullmatch(text, start, end):
            return []
        behind = reading.word_at(end)
        if behind in _BRANDS:
            return []
        for first, last, _ in reading.rules:
            if first == start and (
                end < last <= end + 2  # 蒋光|太
                or (last == end - 1 and text[last] in self._stuck)  # 黎孟|摄
                or (last < end and reading.person(last, end) < _TAIL)
            ):
                return [(first, last)]
        if not reading.cut:
            reading.cut += self._rules.cut(text)
            reading.ends += accumulate(map(len, reading.cut))
        # A word of the dictionary that begins within the name and reaches beyond it: 费雯·丽|乱世佳人.
        index = bisect_right(reading.ends, end - 1)
        word = reading.cut[index]
        begins = reading.ends[index] - len(word)
        reaches = begins > start and reading.ends[index] > end and has_word(word)
        if reaches and (len(word) > 2 or not has_word(behind)) and reading.person(begins, end) < _SURE:
            end = begins
        while end > start and text[end - 1] in _JOINS:
            end -= 1
        if end - start > 2 and text[end - 1] in tables.thing_end and has_word(text[start : end - 1]):
            end -= 1  # 巴金|家
        name = text[start:end]
        if len(name) < 2:
            return []
        if name in tables.famous:
            return [(start, end)]
        parts = [(start, end)]
        if len(name) >= 4 and _HAN.fullmatch(name) and not tables.transliteration.issuperset(name):
            parts = self._long(name, start, reading)
        return [part for part in parts if reading.person(*part) + self._evidence(text, *part) > 0]

    def _evidence(self, text: str, start: int, end: int) -> float:
        """What spelling, dictionary and neighbours say of a span that the network calls a person."""
        tables, rules = self._tables, self._rules
        plain = self._lac.plain(text[start:end])
        score = _NETWORK_ALONE + _TITLE * self._has_title(text, start, end)
        if len(plain) > 4 or not _HAN.fullmatch(plain) or plain in tables.compound:
            return score
        if plain in tables.not_names:
            return score + _NOT_NAME
        odds = tables.odds(plain)
        if not tables.transliteration.issuperset(plain):
            score += _SPELLING * min(max(odds, -5.0), 8.0)
        if rules.has_word(plain) and rules.tag_of(plain, plain) not in _MAYBE_NAMES:
            score += _OTHER_WORD
        return score

    def _honoured(self, place: str) -> int:
        """The length of the name that a place begins with because it honours the person: 岳飞|庙."""
        match = _HONOUR.fullmatch(place)
        name = match[1] if match else ""
        if len(name) < 2 or name in self._no_name:
            return 0
        return len(name) if self._tables.odds(name) > _LEAST_HONOURED else 0

    def _has_title(self, text: str, start: int, end: int) -> bool:
        """Whether a word beside says that a person is named."""
        tables = self._tables
        after = {text[end : end + size] for size in (1, 2, 3)}
        before = {text[max(start - size, 0) : start] for size in (1, 2, 3, 4)}
        return not (
            after.isdisjoint(tables.title_after)
            and after.isdisjoint(tables.verb_after)
            and before.isdisjoint(tables.title_before)
        )

    def _long(self, name: str, start: int, reading: _Reading) -> list[Span]:
        """Han characters that do not all write sounds: names and words, or one of the rare long names."""
        if len(name) == 4 and name[:2] not in self._tables.compound and self._rules.has_word(name):
            return []  # 金玉满堂: the dictionary takes idioms for persons too
        parts = self._split(name)
        if not parts and len(name) > 4:
            parts = [
                (0, last - start)
                for first, last, _ in reading.rules
                if first == start and last < start + len(name)
            ]
        return [(start + first, start + last) for first, last in parts or [(0, len(name))]]

    def _split(self, name: str) -> list[Span]:
        """The likeliest way to read a long span as names and words; empty when it is one name or none."""
        rules, tables = self._rules, self._tables
        best: list[tuple[float, list[Span]]] = [(0.0, [])]
        for end in range(1, len(name) + 1):
            ways = []
            for size in range(1, min(end, 6) + 1):
                begin = end - size
                odds, spans = best[begin]
                word = name[begin:end]
                known = rules.has_word(word)
                if size == 1:
                    ways.append((odds + (_SINGLE if len(name) > 4 else _NEVER), spans))
                elif known:
                    is_person = rules.tag_of(word, word) in ("nr", "nrfg")
                    ways.append((odds + (_WORD_LIKE_NAME if is_person else 0.0), spans))
                if (
                    word in self._no_name
                    or not 2 <= size <= 4
                    or (size == 4 and word[:2] not in tables.compound)
                ):
                    continue
                cost = _NAME_LIKE_WORD if known or rules.has_word(word[1:]) else _NAME
                ways.append((odds + tables.odds(word) + cost, [*spans, (begin, end)]))
            best.append(max(ways))
        odds, spans = best[-1]
        return spans if odds > 0 and spans and spans[0][0] == 0 else []


@dataclass
class _Reading:
    """A text as network, rules and segmenter read it."""

    text: str
    tagged: Tagged
    rules: Sequence[Weighed]
    cut: list[str]  # the segmenter's words, once they are asked for
    ends: list[int]  # ... and where they end

    def person(self, start: int, end: int) -> float:
        """How sure the network is that these characters name a person (log-odds, mean)."""
        return sum(self.tagged.person[start:end]) / (end - start)

    def word_at(self, start: int) -> str:
        """The network's word that starts there."""
        return next((self.text[a:b] for a, b, _ in self.tagged.words if a == start), "")

"""Person names out of captions [W §3.2, rule W7]: each becomes `〈人名〉`.

A segmenter's person tag alone will not do: it marks every sixth animal of ImageNet's Chinese names. Here the tag is one
voice among several. A candidate is a family name with one or two more characters that begins at a word's start; it is
judged by log-odds: how its characters are used in names and in words, whether the dictionary knows it and as what,
whether its end is a word's end, and what stands before and after it (titles, verbs of people, names of things).
Foreign names are found by the middle dot and by the characters that transliterate, or in a list when they stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlcli.curation.name_tables import NameTables, load_tables
from vlcli.text.wordpiece import NAME_TOKEN

Span = tuple[int, int]

_DOTS = "·•・‧"
_DATES = "年月日号"
_NOT_HAN = re.compile(r"[^一-鿿㐀-䶿]")
# Log-odds that the evidence adds; a candidate with a sum above 0 is a name. Set on the tuning half of the test list.
_KNOWN_PERSON = {2: -5.0, 3: -2.0, 4: -2.0}  # the dictionary tags it as a person (rightly or not)
_NEVER = -99.0
_KNOWN_FAMOUS = -1.0  # ... with the tag that it keeps for public figures
_KNOWN_OTHER = -9.0  # the dictionary has it as another word
_NEW_WORD = {2: -2.0, 3: -1.0, 4: -1.0}  # the segmenter made it one word that the dictionary lacks
_PIECES = -3.0  # family name and given name are words of their own
_FUNCTION_FIRST = -3.0  # ... but the family name reads as a preposition, conjunction, adverb or pronoun here
_FUNCTION_TAGS = ("p", "c", "d", "r")
_PIECE_IS_WORD = -3.0  # ... and the given name is an everyday word
_PIECE_IS_GIVEN = 1.0  # ... and the given name is a frequent one
_CUT = -4.0  # it ends inside a word
_GLUED = -2.0  # it ends inside a new word, before a verb
_TITLE_BEFORE = 4.0
_TITLE_AFTER = 4.0
_VERB_AFTER = 2.5
_WEAK_AFTER = 0.5
_THING_AFTER = -6.0
_FOREIGN_RUN = -4.0  # part of a longer word that is written by sound
_COUNTED_BEFORE = -2.0  # a number, a measure word or 的 before it: one says 一只, not of people by name


class NameMasker:
    """Finds and masks names; one instance serves a process (0.2 s to make, some 50,000 short captions a second)."""

    token = NAME_TOKEN

    def __init__(self, tables: NameTables | None = None) -> None:
        import rjieba

        jieba = rjieba.Jieba()  # own instance: words added elsewhere in the process do not leak in
        self._tag = jieba.tag
        self._has_word = jieba.has_word
        self._tables = tables or load_tables()
        families = {letter for letter, odds in self._tables.characters.items() if odds[0] > -9.0}
        self._starts = frozenset(families | {name[0] for name in self._tables.compound})
        longest_first = sorted(self._tables.famous, key=len, reverse=True)
        self._famous = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        sound = "[" + "".join(sorted(self._tables.transliteration)) + "]"
        part = f"(?:{sound}{{1,8}}|[A-Z])"
        middle = f"(?:[{_DOTS}.][一-鿿]{{1,6}}(?=[{_DOTS}.]))"  # between two dots any character will do
        self._dotted = re.compile(f"{part}{middle}{{0,3}}[{_DOTS}.]{part}")

    def mask(self, texts: Sequence[str]) -> list[str]:
        """The texts with every name replaced by the token. Masking a masked text changes nothing."""
        masked = []
        for text in texts:
            while spans := self._spans(text):
                text = self._replace(text, spans)
            masked.append(text)
        return masked

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """(start, end) of each name in each text, in order: what `mask` replaces."""
        found = []
        for text in texts:
            all_spans: list[Span] = []
            here = text
            while spans := self._spans(here):
                all_spans = sorted(all_spans + [self._origin(span, all_spans) for span in spans])
                here = self._replace(text, all_spans)
            found.append(all_spans)
        return found

    @staticmethod
    def _replace(text: str, spans: list[Span]) -> str:
        parts: list[str] = []
        done = 0
        for start, end in spans:
            parts += [text[done:start], NAME_TOKEN]
            done = end
        return "".join([*parts, text[done:]])

    @staticmethod
    def _origin(span: Span, masked: list[Span]) -> Span:
        """Where `span` of the text with `masked` replaced stands in the original."""
        shift = 0
        for start, end in masked:
            if start + shift >= span[1]:
                break
            shift += len(NAME_TOKEN) - (end - start)
        return span[0] - shift, span[1] - shift

    def _spans(self, text: str) -> list[Span]:
        """One pass over one text: disjoint spans, left to right."""
        tags = self._words(text)
        foreign = self._foreign(text, tags)
        spans = list(foreign)
        starts = self._starts
        at = 0
        free = 0  # everything before is part of a name already
        for index, (word, _) in enumerate(tags):
            if at >= free and word[0] in starts:
                end = self._judge(text, tags, index, at)
                if end and not any(start < end and at < stop for start, stop in foreign):
                    spans.append((at, end))
                    free = end
            at += len(word)
        spans.sort()
        return spans

    def _words(self, text: str) -> list[tuple[str, str]]:
        """The segmenter's words and tags; what it glued to a date is cut off: 2020/年余凤英 → 2020/年/余凤英."""
        tags = self._tag(text)
        for index in range(len(tags) - 1, 0, -1):
            word, tag = tags[index]
            if word[0] in _DATES and len(word) > 2 and not self._has_word(word):
                tags[index : index + 1] = [(word[0], "m"), (word[1:], tag)]
        return tags

    def _judge(self, text: str, tags: list[tuple[str, str]], index: int, at: int) -> int:
        """The end of the likeliest name that starts at `at`, where word `index` starts; 0 when there is none."""
        tables = self._tables
        best, best_end = 0.0, 0
        sizes = (3, 4) if text[at : at + 2] in tables.compound else (2, 3)
        for size in sizes:
            end = at + size
            name = text[at:end]
            if len(name) < size or _NOT_HAN.search(name) or name in tables.not_names:
                continue
            score = tables.odds(name)
            if score < -4.0:  # no evidence below can make up for it
                continue
            # The words the candidate covers, and the one that follows it.
            last, stop = index, at + len(tags[index][0])
            while stop < end:
                last += 1
                stop += len(tags[last][0])
            score += self._shape(tags, index, last, stop - end, size)
            after = tags[last][0][len(tags[last][0]) - (stop - end) :] if stop > end else ""
            if not after and last + 1 < len(tags):
                after = tags[last + 1][0]
            score += self._around(tags, index, after)
            beside = text[max(at - 1, 0) : at] + text[end : end + 1]
            if tables.transliteration.issuperset(name) and not tables.sound.isdisjoint(beside):
                score += _FOREIGN_RUN
            if score > best:
                best, best_end = score, end
        return best_end

    def _shape(self, tags: list[tuple[str, str]], index: int, last: int, over: int, size: int) -> float:
        """How the segmenter's words lie on the candidate; `over` characters of the last word are beyond its end."""
        word, tag = tags[index]
        cut = _CUT if over else 0.0
        if word in self._tables.not_names:
            return _NEVER
        if index == last:
            if over:
                if self._has_word(word):
                    return _NEVER
                # A new word that may be the name and something stuck to it: 张秀云站, 黎林来.
                return _GLUED if over == 1 and word[-1] in self._tables.verb_end else cut
            if not self._has_word(word):
                return _NEW_WORD[size]
            if tag == "nrfg":
                return _KNOWN_FAMOUS
            return _KNOWN_PERSON[size] if tag == "nr" else _KNOWN_OTHER
        score = _PIECES + cut
        if tag in _FUNCTION_TAGS:
            score += _FUNCTION_FIRST
        for other, kind in tags[index : last + 1]:
            if other in self._tables.given or other in self._tables.compound:
                score += _PIECE_IS_GIVEN
            elif len(other) > 1 and self._has_word(other):
                score += _PIECE_IS_WORD if kind not in ("nr", "nrfg") else _PIECE_IS_WORD / 2
        return score

    def _around(self, tags: list[tuple[str, str]], index: int, after: str) -> float:
        tables = self._tables
        score = 0.0
        if index:
            before, kind = tags[index - 1]
            if before in "：:" and index > 1:
                before, kind = tags[index - 2]
            if before in tables.title_before:
                score += _TITLE_BEFORE
            elif (before == "的" or kind in ("m", "q")) and before[-1] not in _DATES:
                score += _COUNTED_BEFORE
        if after in tables.title_after:
            score += _TITLE_AFTER
        elif after in tables.verb_after:
            score += _VERB_AFTER
        elif after in tables.weak_after:
            score += _WEAK_AFTER
        elif after in tables.thing_after:
            score += _THING_AFTER
        return score

    def _foreign(self, text: str, tags: list[tuple[str, str]]) -> list[Span]:
        """Names with a middle dot, and the well-known ones that stand alone."""
        spans: list[Span] = []
        words: dict[int, int] | None = None  # where words end -> index of the next
        if any(dot in text for dot in _DOTS):
            for match in self._dotted.finditer(text):
                if not any(dot in match.group() for dot in _DOTS):
                    continue
                words = words or _boundaries(tags)
                start, end = self._trim(text, match.span(), words)
                parts = re.split(f"[{_DOTS}.]", text[start:end])
                if max(map(len, parts)) >= 2 and len("".join(parts)) >= 3:
                    spans.append((start, end))
        for match in self._famous.finditer(text):
            words = words or _boundaries(tags)
            start, end = match.span()
            following = words.get(end, len(tags))
            thing = following < len(tags) and tags[following][0] in self._tables.thing_after
            if not thing and not any(start < stop and first < end for first, stop in spans):
                spans.append((start, end))
        return sorted(spans)

    def _trim(self, text: str, span: Span, words: dict[int, int]) -> Span:
        """Give back, at both ends, what belongs to a word that reaches beyond the name."""
        start, end = span
        first_dot = min(text.find(dot, start, end) % (len(text) + 1) for dot in _DOTS)
        last_dot = max(text.rfind(dot, start, end) for dot in _DOTS)
        while start not in words and start < first_dot - 1:
            start += 1
        whole = end
        while whole not in words and whole > last_dot + 2:
            whole -= 1
        return start, whole if whole in words else end


def _boundaries(tags: list[tuple[str, str]]) -> dict[int, int]:
    ends, at = {0: 0}, 0
    for index, (word, _) in enumerate(tags):
        at += len(word)
        ends[at] = index + 1
    return ends

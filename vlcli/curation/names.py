"""Person names out of captions [W §3.2, rule W7]: each becomes `〈人名〉`.

A segmenter's person tag alone will not do: it marks every sixth animal of ImageNet's Chinese names. Here the tag is one
voice among several. A candidate is a family name with one or two more characters that begins at a word's start; it is
judged by log-odds: how its characters are used in names and in words, whether the dictionary knows it and as what,
whether its end is a word's end, and what stands before and after it (titles, verbs of people, names of things).
Foreign names are found by the middle dot and by the characters that transliterate, or in a list when they stand alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from vlcli.curation.name_scan import DOTS, Bounds, NameScan
from vlcli.curation.name_spans import Masker, Span
from vlcli.curation.name_tables import NameTables, load_tables

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
_FOREIGN = 9.0  # a name with a middle dot, or a listed one
_FOREIGN_RUN = -4.0  # part of a longer word that is written by sound
_COUNT_TAGS = ("m", "q")
_COUNTED_BEFORE = -2.0  # a number, a measure word or 的 before it: one says 一只, not of people by name


# The most that all this can come to, for the quick look that leaves out what cannot be a name.
_LEAST = -4.0  # spelling that no evidence makes up for
_BEST_PIECES = _PIECES + 2 * _PIECE_IS_GIVEN
_BEST_SHAPE = {
    size: max(_NEW_WORD[size], _KNOWN_PERSON[size], _KNOWN_FAMOUS, _GLUED, _BEST_PIECES) for size in (2, 3, 4)
}
Weighed = tuple[int, int, float]  # start, end, log-odds
Candidate = tuple[int, int, float]  # start, size, log-odds of the spelling
_REMEMBERED = 200_000  # spellings whose odds are kept


class NameMasker(Masker):
    """Finds and masks names by rules; one instance serves a process (0.2 s to make)."""

    def __init__(self, tables: NameTables | None = None) -> None:
        import rjieba

        jieba = rjieba.Jieba()  # own instance: words added elsewhere in the process do not leak in
        self._cut = jieba.cut
        self._tag = jieba.tag
        self.has_word = jieba.has_word
        self._tables = tables or load_tables()
        after = dict.fromkeys(self._tables.weak_after, _WEAK_AFTER)
        after |= dict.fromkeys(self._tables.verb_after, _VERB_AFTER)
        after |= dict.fromkeys(self._tables.title_after, _TITLE_AFTER)
        self._pieces = self._tables.given | self._tables.compound
        self._spellings: dict[str, tuple[float, float]] = {}
        self._tags: dict[str, str] = {}
        self._scan = NameScan(self._tables, Bounds(_LEAST, _BEST_SHAPE, _TITLE_BEFORE, after))
        longest_first = sorted(self._tables.famous, key=len, reverse=True)
        self._famous = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        sound = "[" + "".join(sorted(self._tables.transliteration)) + "]"
        part = f"(?:{sound}{{1,8}}|[A-Z])"
        middle = f"(?:[{DOTS}.][一-鿿]{{1,6}}(?=[{DOTS}.]))"  # between two dots any character will do
        self._dotted = re.compile(f"{part}{middle}{{0,3}}[{DOTS}.]{part}")

    def look(self, texts: Sequence[str]) -> list[list[Span]]:
        return [[(start, end) for start, end, _ in spans] if spans else [] for spans in self.weigh(texts)]

    def weigh(self, texts: Sequence[str]) -> list[Sequence[Weighed]]:
        """What `look` finds, with the log-odds of each."""
        scan = self._scan.scan(texts)
        found: list[Sequence[Weighed]] = [()] * len(texts)
        likely: dict[int, list[Candidate]] = {place: [] for place in scan.foreign}
        known, verb_end = self._spellings, self._tables.verb_end
        for place, start, size, around in zip(scan.text, scan.start, scan.size, scan.around, strict=True):
            text = texts[place]
            name = text[start : start + size]
            odds, best = known.get(name) or self._spelling(name)
            if best + around <= 0 and (
                odds + _GLUED + around <= 0 or text[start + size : start + size + 1] not in verb_end
            ):
                continue
            if not self._is_bridged(text, start, size):
                if place in likely:
                    likely[place].append((start, size, odds))
                else:
                    likely[place] = [(start, size, odds)]
        for place, candidates in likely.items():
            found[place] = self._spans(texts[place], candidates, place in scan.foreign)
        return found

    def _spelling(self, name: str) -> tuple[float, float]:
        """Log-odds of the spelling, and the most that they can come to by how words lie on the name."""
        odds = best = _NEVER
        if not (_NOT_HAN.search(name) or name in self._tables.not_names or name in self._tables.compound):
            odds = self._tables.odds(name)
        if odds >= _LEAST:
            best = odds + max(self._best_pieces(name), self._best_whole(name))
        if len(self._spellings) >= _REMEMBERED:
            self._spellings.clear()
        self._spellings[name] = odds, best
        return odds, best

    def _best_whole(self, name: str) -> float:
        """The most it can count for that the segmenter makes it one word."""
        if self.has_word(name):
            return self._known(name, self.tag_of(name, name))
        return _NEVER if self._is_word_behind(name) else _NEW_WORD[len(name)]

    def _best_pieces(self, name: str) -> float:
        """The most it can count for that the segmenter makes it several."""
        if self._is_word_behind(name):
            return _PIECES + self._piece(name[1:], name)
        return _PIECES + _PIECE_IS_GIVEN * sum(name[i : i + 2] in self._pieces for i in range(len(name) - 1))

    def _is_word_behind(self, name: str) -> bool:
        """Whether an everyday word stands behind a family name of one character: 林/清晨."""
        given = name[1:]
        if len(given) != 2 or given in self._pieces or name[:2] in self._tables.compound:
            return False
        return self.has_word(given) and not self.has_word(name)

    def _is_bridged(self, text: str, at: int, size: int) -> bool:
        """Whether a word of the dictionary reaches over an end of the candidate, so that it is cut elsewhere.

        Beyond its end: 马到成|功. Before its start: 亚|丁三, unless another word ends there or starts there
        (村民|田桂英 in spite of 民田).
        """
        has = self.has_word
        end = at + size
        if end < len(text) and (has(text[at : end + 1]) or (size == 2 and has(text[at : at + 4]))):
            return True
        if not at or not has(text[at - 1 : at + 1]) or has(text[at : at + 2]) or has(text[at : at + 3]):
            return False
        if (at > 1 and has(text[at - 2 : at])) or (at > 2 and has(text[at - 3 : at])):
            return False
        return at < 4 or not has(text[at - 4 : at])

    def _spans(self, text: str, candidates: list[Candidate], has_foreign: bool) -> list[Weighed]:
        """One look at one text, of which the scan left `candidates`: disjoint spans, left to right."""
        words = self.cut(text)
        ends = list(accumulate(map(len, words)))
        foreign = self._foreign(text, ends, words) if has_foreign else []
        spans = [(start, end, _FOREIGN) for start, end in foreign]
        free = 0  # everything before is part of a name already
        best, best_end = 0.0, 0  # of the candidates that start where this one does
        for i, (at, size, odds) in enumerate(candidates):
            index = bisect_right(ends, at)  # of the word that holds the first character
            if at >= free and ends[index] - len(words[index]) == at:
                score = odds + self._judge(text, words, ends, index, at, size)
                if score > best:
                    best, best_end = score, at + size
            if best_end and (i + 1 == len(candidates) or candidates[i + 1][0] != at):
                if not foreign or not any(start < best_end and at < stop for start, stop in foreign):
                    spans.append((at, best_end, best))
                    free = best_end
                best, best_end = 0.0, 0
        spans.sort()
        return spans

    def cut(self, text: str) -> list[str]:
        """The segmenter's words; what it glued to a date is cut off: 2020/年余凤英 → 2020/年/余凤英."""
        words: list[str] = self._cut(text)
        if "年" in text or "月" in text or "日" in text or "号" in text:
            for index in range(len(words) - 1, 0, -1):
                word = words[index]
                if word[0] in _DATES and len(word) > 2 and not self.has_word(word):
                    words[index : index + 1] = [word[0], word[1:]]
        return words

    def tag_of(self, word: str, text: str) -> str:
        """The word's part of speech, which is the dictionary's whatever the text around: asked once a word."""
        tag = self._tags.get(word)
        if tag is None:
            if len(self._tags) >= _REMEMBERED:
                self._tags.clear()
            tags = self._tag(word)
            if len(tags) > 1:  # alone it would be two words
                tags = [(other, kind) for other, kind in self._tag(text) if other == word]
            tag = self._tags[word] = tags[0][1] if tags else ""
        return tag

    def _judge(self, text: str, words: list[str], ends: list[int], index: int, at: int, size: int) -> float:
        """What words and neighbours say of the candidate of `size` that starts at `at`, where word `index` does."""
        tables = self._tables
        end = at + size
        last = index  # word that the candidate ends in
        while ends[last] < end:
            last += 1
        over = ends[last] - end
        if over:
            after = words[last][-over:]
        else:
            after = words[last + 1] if last + 1 < len(words) else ""
        score = self._shape(text, words, index, last, over, size)
        if self._is_word_behind(text[at:end]):  # also where the segmenter does not see it
            score = min(score, self._best_pieces(text[at:end]))
        score += self._around(text, words, index, after)
        beside = text[max(at - 1, 0) : at] + text[end : end + 1]
        if not tables.sound.isdisjoint(beside) and tables.transliteration.issuperset(text[at:end]):
            score += _FOREIGN_RUN
        return score

    def _shape(self, text: str, words: list[str], index: int, last: int, over: int, size: int) -> float:
        """How the segmenter's words lie on the candidate; `over` characters of the last word are beyond its end."""
        word = words[index]
        cut = _CUT if over else 0.0
        if word in self._tables.not_names:
            return _NEVER
        if index == last:
            if over:
                if self.has_word(word):
                    return _NEVER
                # A new word that may be the name and something stuck to it: 张秀云站, 黎林来.
                return _GLUED if over == 1 and word[-1] in self._tables.verb_end else cut
            return self._known(word, self.tag_of(word, text)) if self.has_word(word) else _NEW_WORD[size]
        score = _PIECES + cut
        if self.tag_of(word, text) in _FUNCTION_TAGS:
            score += _FUNCTION_FIRST
        return score + sum(self._piece(other, text) for other in words[index : last + 1])

    def _piece(self, word: str, text: str) -> float:
        """How a word of `text` counts that is a part of a candidate."""
        if word in self._pieces:
            return _PIECE_IS_GIVEN
        if len(word) < 2 or not self.has_word(word):
            return 0.0
        return _PIECE_IS_WORD / 2 if self.tag_of(word, text) in ("nr", "nrfg") else _PIECE_IS_WORD

    @staticmethod
    def _known(name: str, tag: str) -> float:
        """How a name counts that the dictionary has with this tag."""
        if tag == "nrfg":
            return _KNOWN_FAMOUS
        return _KNOWN_PERSON[len(name)] if tag == "nr" else _KNOWN_OTHER

    def _around(self, text: str, words: list[str], index: int, after: str) -> float:
        tables = self._tables
        score = 0.0
        if index:
            before = words[index - 1]
            if before in "：:" and index > 1:
                before = words[index - 2]
            if before in tables.title_before:
                score += _TITLE_BEFORE
            elif before == "的" or (before[-1] not in _DATES and self.tag_of(before, text) in _COUNT_TAGS):
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

    def _foreign(self, text: str, ends: list[int], words: list[str]) -> list[Span]:
        """Names with a middle dot, and the well-known ones that stand alone."""
        spans: list[Span] = []
        index_at = dict(zip([0, *ends], range(len(words) + 1), strict=True))  # where words start -> which
        if any(dot in text for dot in DOTS):
            for match in self._dotted.finditer(text):
                if not any(dot in match.group() for dot in DOTS):
                    continue
                start, end = self._trim(text, match.span(), index_at)
                parts = re.split(f"[{DOTS}.]", text[start:end])
                if max(map(len, parts)) >= 2 and len("".join(parts)) >= 3:
                    spans.append((start, end))
        for match in self._famous.finditer(text):
            start, end = match.span()
            following = index_at.get(end, len(words))
            thing = following < len(words) and words[following] in self._tables.thing_after
            if not thing and not any(start < stop and first < end for first, stop in spans):
                spans.append((start, end))
        return sorted(spans)

    def _trim(self, text: str, span: Span, words: dict[int, int]) -> Span:
        """Give back, at both ends, what belongs to a word that reaches beyond the name."""
        start, end = span
        first_dot = min(text.find(dot, start, end) % (len(text) + 1) for dot in DOTS)
        last_dot = max(text.rfind(dot, start, end) for dot in DOTS)
        while start not in words and start < first_dot - 1:
            start += 1
        whole = end
        while whole not in words and whole > last_dot + 2:
            whole -= 1
        return start, whole if whole in words else end

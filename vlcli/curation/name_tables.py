"""The tables behind the name masker: characters, words and foreign names that speak for or against a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DATA = Path(__file__).parent / "data"
# Log-odds of a character that the table lacks, being rare in names and words alike: never a family name.
UNKNOWN = (-9.0, 0.5, 0.5)


@dataclass(frozen=True)
class NameTables:
    characters: dict[
        str, tuple[float, float, float]
    ]  # log-odds as family name, first and second given character
    given: frozenset[str]  # frequent given names of two characters
    compound: frozenset[str]  # family names of two characters
    transliteration: frozenset[str]  # characters that write foreign names
    famous: frozenset[str]  # transliterated names that stand alone
    not_names: frozenset[str]
    title_before: frozenset[str]
    title_after: frozenset[str]
    verb_after: frozenset[str]
    weak_after: frozenset[str]
    thing_after: frozenset[str]
    everyday: frozenset[str]  # family names that are everyday words too
    sound: frozenset[str]  # characters of foreign words that hardly a Chinese given name has
    never: frozenset[str]  # function words
    thing_end: frozenset[str]  # last characters of things and places
    verb_end: frozenset[str]  # verbs that a segmenter glues to a name before them

    def odds(self, name: str) -> float:
        """Natural log-odds that `name` (2 to 4 characters) is a person's and no other word, spelling alone."""
        table = self.characters
        if name[:2] in self.compound:
            odds, given = 4.0 - 2.0 * (name[:2] in ("东方", "西门")), name[2:]
        else:
            odds, given = table.get(name[0], UNKNOWN)[0], name[1:]
            if name[0] in self.everyday:
                odds -= 2.0
        if len(given) == 1:
            odds += sum(table.get(given, UNKNOWN)[1:]) / 2
        else:
            odds += table.get(given[0], UNKNOWN)[1] + table.get(given[1], UNKNOWN)[2]
        if not self.sound.isdisjoint(given):
            odds -= 4.0
        if not self.never.isdisjoint(given):
            odds -= 8.0
        if given[-1] in self.thing_end:
            odds -= 3.0
        if given[-1] in self.verb_end and (len(given) > 1 or name[0] in self.everyday):
            odds -= 2.5
        if given in self.title_after or given in self.title_before:
            odds -= 12.0  # 李先生, 王教授
        if self.transliteration.issuperset(name[:-1]) and (
            given[-1] == "语" or given[-1] in self.transliteration
        ):
            odds -= 2.0  # 卢干达, 隆达语: rather a foreign word
        return odds


def _sections(file: str) -> Iterator[tuple[str, list[str]]]:
    """(section, words of the line) for every line that is neither a comment nor a heading."""
    section = ""
    for line in (_DATA / file).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            yield section, line.split()


def _words(file: str, section: str = "") -> frozenset[str]:
    return frozenset(word for here, words in _sections(file) if here == section for word in words)


def _letters(section: str) -> frozenset[str]:
    return frozenset("".join(_words("name_context.txt", section)))


@cache
def load_tables() -> NameTables:
    """Read once per process (about 10 ms)."""
    characters: dict[str, tuple[float, float, float]] = {}
    for line in (_DATA / "name_characters.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        letter, family, first, second = line.split("\t")
        characters[letter] = (float(family), float(first), float(second))
    return NameTables(
        characters=characters,
        given=_words("given_names.txt"),
        compound=_words("surnames.txt", "compound"),
        transliteration=frozenset("".join(_words("transliteration.txt"))),
        famous=_words("famous_names.txt"),
        not_names=_words("not_names.txt"),
        title_before=_words("name_context.txt", "title before"),
        title_after=_words("name_context.txt", "title after"),
        verb_after=_words("name_context.txt", "verb after"),
        weak_after=_words("name_context.txt", "weak after"),
        thing_after=_words("name_context.txt", "thing after"),
        everyday=_letters("everyday family"),
        sound=_letters("sound"),
        never=_letters("never in names"),
        thing_end=_letters("thing at end"),
        verb_end=_letters("verb at end"),
    )

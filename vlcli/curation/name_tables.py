"""The tables behind the name masker: characters, words and foreign names that speak for or against a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DATA = Path(__file__).parent / "data"
# Log-odds of a character that the table lacks: never a family name, an unlikely given one.
UNKNOWN = (-9.0, -2.5, -2.5)


@dataclass(frozen=True)
class NameTables:
    characters: dict[str, tuple[float, float, float]]  # log-odds as family name, first and second given character
    compound: frozenset[str]  # family names of two characters
    transliteration: frozenset[str]  # characters that write foreign names
    famous: frozenset[str]  # transliterated names that stand alone
    not_names: frozenset[str]
    title_before: frozenset[str]
    title_after: frozenset[str]
    verb_after: frozenset[str]
    weak_after: frozenset[str]
    thing_after: frozenset[str]

    def odds(self, name: str) -> float:
        """Natural log-odds that `name` (2 to 4 characters) is a person's and no other word, spelling alone."""
        table = self.characters
        if name[:2] in self.compound:
            family, given = 4.0, name[2:]
        else:
            family, given = table.get(name[0], UNKNOWN)[0], name[1:]
        if len(given) == 1:
            _, first, second = table.get(given, UNKNOWN)
            return family + (first + second) / 2
        return family + table.get(given[0], UNKNOWN)[1] + table.get(given[1], UNKNOWN)[2]


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


@cache
def load_tables() -> NameTables:
    """Read once per process (about 10 ms)."""
    characters: dict[str, tuple[float, float, float]] = {}
    for line in (_DATA / "name_characters.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        letter, family, first, second = line.split("\t")
        characters[letter] = (float(family), float(first), float(second))
    return NameTables(
        characters=characters,
        compound=_words("surnames.txt", "compound"),
        transliteration=frozenset("".join(_words("transliteration.txt"))),
        famous=_words("famous_names.txt"),
        not_names=_words("not_names.txt"),
        title_before=_words("name_context.txt", "title before"),
        title_after=_words("name_context.txt", "title after"),
        verb_after=_words("name_context.txt", "verb after"),
        weak_after=_words("name_context.txt", "weak after"),
        thing_after=_words("name_context.txt", "thing after"),
    )

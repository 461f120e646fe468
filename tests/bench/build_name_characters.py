"""Rebuild vlcli/curation/data/name_characters.tsv from jieba's dictionary (MIT).

Run as `python tests/bench/build_name_characters.py`.

How much likelier a character is in a person name than in another word of the dictionary, as a natural logarithm: as
family name, as the first and as the second given character. Counts are over dictionary entries.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import jieba

DATA = Path(__file__).parents[2] / "vlcli" / "curation" / "data"
PLACES = ("family", "first", "second")


def entries() -> list[tuple[str, str]]:
    lines = (Path(jieba.__file__).parent / "dict.txt").read_text(encoding="utf-8").splitlines()
    return [(word, tag) for word, _, tag in (line.split(" ") for line in lines)]


def families() -> set[str]:
    found: set[str] = set()
    for line in (DATA / "surnames.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("[compound]"):
            break
        if not line.startswith(("#", "[")):
            found.update(line)
    return found


def main() -> None:
    known = families()
    name: dict[str, Counter[str]] = {place: Counter() for place in PLACES}
    word: dict[str, Counter[str]] = {place: Counter() for place in PLACES}
    for text, tag in entries():
        if len(text) not in (2, 3, 4) or not all("一" <= letter <= "鿿" for letter in text):
            continue
        counts = name if tag in ("nr", "nrfg") else word
        if counts is name and (text[0] not in known or len(text) == 4):
            continue
        counts["family"][text[0]] += 1
        if len(text) == 3:  # its two-character entries mix names and common nouns
            counts["first"][text[1]] += 1
            counts["second"][text[2]] += 1
    totals = {place: (sum(name[place].values()), sum(word[place].values())) for place in PLACES}
    rows = []
    for letter in sorted(known | set().union(*name.values(), *word.values())):
        scores = []
        for place in PLACES:
            in_names, in_words = name[place][letter] + 0.5, word[place][letter] + 2.0
            of_names, of_words = totals[place]
            score = math.log(in_names / of_names) - math.log(in_words / of_words)
            if place == "family" and letter not in known:
                score = -9.0
            scores.append(f"{max(-9.0, score):.1f}")
        # A character that is rare in both stays out: the reader takes it for neutral.
        if max(*(name[place][letter] for place in PLACES), *(word[place][letter] for place in PLACES)) >= 4:
            rows.append("\t".join([letter, *scores]))
    header = "\t".join(["character", *PLACES])
    (DATA / "name_characters.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    print(f"{len(rows)} characters")


if __name__ == "__main__":
    main()

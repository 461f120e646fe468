"""Precision, recall and speed of the name maskers beside what person tags alone would do.

    OMP_NUM_THREADS=1 python tests/bench/names.py [--errors]

`--errors` lists those of the tuning half. The captions and the word lists have one author, who knew both halves when
the lists were written. The rows "without lists" are therefore the pessimistic bound: no allow-list, no well-known
names, no frequent given names.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import rjieba

from vlcli.curation.name_model import ModelMasker
from vlcli.curation.name_spans import Span
from vlcli.curation.name_tables import NameTables, load_tables
from vlcli.curation.names import NameMasker

ROOT = Path(__file__).parents[2]
LIST = ROOT / "tests" / "data" / "person_names.jsonl"
Finder = Callable[[Sequence[str]], list[list[Span]]]


@dataclass(frozen=True)
class Caption:
    kind: str  # named, natural (no name), hard (no name, but words that look like one)
    text: str
    names: list[Span]


@dataclass(frozen=True)
class Scores:
    """Percentages. A name is found when a span covers it exactly."""

    recall: float
    precision: float  # over spans, in captions with names and natural ones without
    natural_touched: float
    hard_touched: float


def load(half: str) -> list[Caption]:
    """Half "tune" or "report": by the first byte of the sha256 of the text."""
    captions = []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if hashlib.sha256(row["text"].encode()).digest()[0] % 2 != (half == "report"):
            continue
        spans, at = [], 0
        for name in row["names"]:
            at = row["text"].index(name, at)
            spans.append((at, at + len(name)))
            at += len(name)
        captions.append(Caption(row["kind"], row["text"], spans))
    return captions


def bare_tag(texts: Sequence[str]) -> list[list[Span]]:
    """What the person tags alone would mask (nr, nrt, nrfg)."""
    return [_tagged(text, lambda word: True) for text in texts]


def tag_and_family(texts: Sequence[str]) -> list[list[Span]]:
    """... of two to four characters that begin with a family name."""
    tables = load_tables()

    def is_named(word: str) -> bool:
        family = tables.characters.get(word[0], (-9.0, 0.0, 0.0))[0] > -9.0
        return 2 <= len(word) <= 4 and (family or word[:2] in tables.compound)

    return [_tagged(text, is_named) for text in texts]


def _tagged(text: str, keep: Callable[[str], bool]) -> list[Span]:
    spans, at = [], 0
    for word, tag in rjieba.tag(text):
        if tag.startswith("nr") and keep(word):
            spans.append((at, at + len(word)))
        at += len(word)
    return spans


def rules(*, lists: bool = True) -> Finder:
    return NameMasker(_tables(lists=lists)).find


def model(*, lists: bool = True) -> Finder:
    return ModelMasker(_tables(lists=lists)).find


def _tables(*, lists: bool) -> NameTables:
    none: frozenset[str] = frozenset()
    tables = load_tables()
    return tables if lists else replace(tables, not_names=none, famous=none, given=none)


def score(captions: list[Caption], find: Finder) -> Scores:
    found = list(zip(captions, find([caption.text for caption in captions]), strict=True))

    def touched(kind: str) -> float:
        some = [bool(spans) for caption, spans in found if caption.kind == kind]
        return 100 * sum(some) / len(some)

    judged = [(caption, spans) for caption, spans in found if caption.kind != "hard"]
    right = sum(len(set(caption.names) & set(spans)) for caption, spans in judged)
    return Scores(
        recall=100 * right / sum(len(caption.names) for caption, _ in judged),
        precision=100 * right / max(1, sum(len(spans) for _, spans in judged)),
        natural_touched=touched("natural"),
        hard_touched=touched("hard"),
    )


def mixture(number: int) -> list[str]:
    """Captions of the list, filled up with others and CLDR's words to 21 characters on average; 17 % hold a name."""
    draw = random.Random(0)
    captions = [caption for half in ("tune", "report") for caption in load(half)]
    of_kind = {kind: [c.text for c in captions if c.kind == kind] for kind in ("named", "natural", "hard")}
    frame = pl.read_parquet(ROOT / "examples/emoji/raw.parquet", columns=["name", "keywords"])
    words = frame["name"].unique(maintain_order=True).to_list()
    words += frame["keywords"].explode().drop_nulls().unique(maintain_order=True).to_list()
    texts = []
    for _ in range(number):
        wanted = draw.gauss(16, 7)
        text = draw.choice(of_kind[draw.choices(["named", "natural", "hard"], [12, 80, 8])[0]])
        while len(text) < wanted:
            more = of_kind["natural"] if draw.random() < 0.6 else words
            text += draw.choice(["，", " ", "", "。"]) + draw.choice(more)
        texts.append(text)
    return texts


def speeds(finders: dict[str, Finder], texts: list[str], size: int = 500) -> dict[str, float]:
    """Captions a second of processor time: each finder's best part, for what else runs on the machine slows all.

    The finders take turns, so that they meet the same neighbours; the model only at each tenth part.
    """
    best = dict.fromkeys(finders, 0.0)
    for start in range(0, len(texts), size):
        for name, find in finders.items():
            if name.startswith("model") and start % (10 * size):
                continue
            some = texts[start : start + size]
            began = time.process_time()
            find(some)
            best[name] = max(best[name], len(some) / (time.process_time() - began))
    return best


def main() -> None:
    finders: dict[str, Finder] = {
        "bare nr tag (rjieba)": bare_tag,
        "nr tag, family name, 2–4 characters": tag_and_family,
        "rules, without lists": rules(lists=False),
        "rules": rules(),
        "model, without lists": model(lists=False),
        "model": model(),
    }
    rates = speeds(finders, mixture(20_000))
    print("| finder | half | recall | precision | natural touched | hard touched | captions/s |")
    print("|---|---|---|---|---|---|---|")
    for name, find in finders.items():
        for half in ("tune", "report"):
            s = score(load(half), find)
            print(
                f"| {name} | {half} | {s.recall:.1f} | {s.precision:.1f} | {s.natural_touched:.1f} "
                f"| {s.hard_touched:.1f} | {rates[name]:,.0f} |"
            )
    if "--errors" in sys.argv:
        for name in ("rules", "model"):
            captions = load("tune")
            found = finders[name]([caption.text for caption in captions])
            for caption, spans in zip(captions, found, strict=True):
                wrong = [caption.text[a:b] for a, b in spans if (a, b) not in caption.names]
                missed = [caption.text[a:b] for a, b in caption.names if (a, b) not in spans]
                if wrong or missed:
                    print(f"{name}\t{caption.kind}\t{caption.text}\tmissed {missed}\twrong {wrong}")


if __name__ == "__main__":
    main()

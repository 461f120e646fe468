"""Precision, recall and speed of the name masker beside the bare person tag.

The captions and the word lists have one author, who knew both halves when the lists were written. The row "without
lists" is therefore the pessimistic bound: no allow-list, no famous names, no frequent given names.

Run as `python tests/bench/names.py [--errors]`; `--errors` lists those of the tuning half.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import rjieba

from vlcli.curation.name_spans import Span
from vlcli.curation.name_tables import load_tables
from vlcli.curation.names import NameMasker

ROOT = Path(__file__).parents[2]
LIST = ROOT / "tests" / "data" / "person_names.jsonl"
Finder = Callable[[str], list[Span]]


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


def bare_tag(text: str) -> list[Span]:
    """What the person tags alone would mask (nr, nrt, nrfg)."""
    spans, at = [], 0
    for word, tag in rjieba.tag(text):
        if tag.startswith("nr"):
            spans.append((at, at + len(word)))
        at += len(word)
    return spans


def rules(*, lists: bool = True) -> Finder:
    tables = load_tables()
    if not lists:
        none: frozenset[str] = frozenset()
        tables = replace(tables, not_names=none, famous=none, given=none)
    names = NameMasker(tables)
    return lambda text: names.find([text])[0]


def score(captions: list[Caption], find: Finder) -> Scores:
    def touched(kind: str) -> float:
        some = [caption for caption in captions if caption.kind == kind]
        return 100 * sum(bool(find(caption.text)) for caption in some) / len(some)

    found = [(caption, find(caption.text)) for caption in captions if caption.kind != "hard"]
    right = sum(len(set(caption.names) & set(spans)) for caption, spans in found)
    return Scores(
        recall=100 * right / sum(len(caption.names) for caption, _ in found),
        precision=100 * right / max(1, sum(len(spans) for _, spans in found)),
        natural_touched=touched("natural"),
        hard_touched=touched("hard"),
    )


def main() -> None:
    finders = {"bare nr tag": bare_tag, "vlcli, without lists": rules(lists=False), "vlcli": rules()}
    print("| half | finder | recall | precision | natural captions touched | hard captions touched |")
    print("|---|---|---|---|---|---|")
    for half in ("tune", "report"):
        for name, find in finders.items():
            s = score(load(half), find)
            print(
                f"| {half} | {name} | {s.recall:.1f} | {s.precision:.1f} | {s.natural_touched:.1f} "
                f"| {s.hard_touched:.1f} |"
            )
    if "--errors" in sys.argv:
        for caption in load("tune"):
            spans = finders["vlcli"](caption.text)
            if spans != caption.names:
                wrong = [caption.text[a:b] for a, b in spans if (a, b) not in caption.names]
                missed = [caption.text[a:b] for a, b in caption.names if (a, b) not in spans]
                print(f"{caption.kind}\t{caption.text}\tmissed {missed}\twrong {wrong}")
    texts = [caption.text for caption in load("tune")] * 200
    names = NameMasker()
    names.mask(texts[:200])
    start = time.process_time()
    names.mask(texts)
    print(f"\n{len(texts) / (time.process_time() - start):,.0f} captions a second of processor time")


if __name__ == "__main__":
    main()

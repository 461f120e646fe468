"""What the rules did: rows and texts per rule, the most frequent strings, a checksum of what was kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Count:
    """Sequential: what a rule saw is what all rules before it kept."""

    seen: int = 0
    kept: int = 0

    def add(self, seen: int, kept: int) -> None:
        self.seen += seen
        self.kept += kept

    def shown(self) -> dict[str, int]:
        return {"seen": self.seen, "kept": self.kept, "dropped": self.seen - self.kept}


@dataclass
class StepTally:
    """One rule's counts: rows always, texts where texts are judged or changed."""

    name: str
    scope: str
    has_texts: bool
    changes: bool = False
    rows: Count = field(default_factory=Count)
    texts: Count = field(default_factory=Count)
    changed_texts: int = 0
    replaced: int = 0

    def shown(self) -> dict[str, Any]:
        line: dict[str, Any] = {"rule": self.name, "scope": self.scope, **self.rows.shown()}
        if self.has_texts:
            line["texts"] = self.texts.shown()
        if self.changes:
            line["texts"]["changed"] = self.changed_texts
            line["replaced"] = self.replaced
        return line


class TopStrings:
    """The most frequent strings in bounded memory.

    Exact while there are at most `capacity` different ones. Beyond that every count is lowered by the count
    of the string just out of reach, and strings at zero are forgotten (Misra and Gries): no count shown is
    too high, and none is too low by more than `error`.
    """

    def __init__(self, capacity: int = 10_000, longest: int = 120) -> None:
        self._capacity, self._longest = capacity, longest
        self._counts: Counter[str] = Counter()
        self.error = 0

    def add(self, strings: Iterable[str]) -> None:
        longest = self._longest
        self._counts.update(s if len(s) <= longest else s[: longest - 1] + "…" for s in strings)
        if len(self._counts) > 2 * self._capacity:
            self._forget()

    def _forget(self) -> None:
        lower = sorted(self._counts.values(), reverse=True)[self._capacity]
        self._counts = Counter({s: n - lower for s, n in self._counts.items() if n > lower})
        self.error += lower

    def shown(self, number: int) -> dict[str, Any]:
        top = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:number]
        return {
            "counter": "exact" if not self.error else "misra-gries",
            "too_low_by_at_most": self.error,
            "strings": [{"text": text, "count": count} for text, count in top],
        }


class Checksum:
    """Of rows as (image_id, texts), whatever their order: the sum of their SHA-256, modulo 2^128.

    A sum and not an exclusive or, so that two equal rows do not cancel.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, image_ids: Sequence[str | None], texts: Sequence[Sequence[str] | None]) -> None:
        for image_id, row in zip(image_ids, texts, strict=True):
            digest = hashlib.sha256(orjson.dumps([image_id, row])).digest()
            self._sum += int.from_bytes(digest[:16])

    def merge(self, other: Checksum) -> None:
        """Add those of further rows."""
        self._sum += other._sum

    def hex(self) -> str:
        return f"{self._sum % (1 << 128):032x}"


@dataclass
class Totals:
    """In = kept + dropped + bad, in rows and in texts."""

    given: int = 0
    kept: int = 0
    dropped: int = 0
    bad: int = 0

    def shown(self) -> dict[str, int]:
        assert self.given == self.kept + self.dropped + self.bad, f"rows do not add up: {self}"
        return {"in": self.given, "kept": self.kept, "dropped": self.dropped, "bad": self.bad}

"""What the rules did: rows and texts per rule, the most frequent strings, a checksum of what was kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from vlcli.records.digest import contents_json, from_hex, json_pairs, sha256, sum128


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

    def add(self, other: StepTally) -> None:
        """The same rule's counts of other rows."""
        self.rows.add(other.rows.seen, other.rows.kept)
        self.texts.add(other.texts.seen, other.texts.kept)
        self.changed_texts += other.changed_texts
        self.replaced += other.replaced

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
        self._counts = pl.DataFrame(schema={"text": pl.String(), "count": pl.Int64()})
        self._held: list[pl.DataFrame] = []
        self._held_rows = 0
        self.error = 0

    def add(self, strings: pl.Series | Iterable[str]) -> None:
        text = pl.Series("text", strings, dtype=pl.String())
        long = (text.str.len_bytes() > self._longest).arg_true()
        long = long.filter(text.gather(long).str.len_chars() > self._longest)
        if len(long):
            text = text.clone().scatter(long, text.gather(long).str.slice(0, self._longest - 1) + "…")
        self.add_counts(text.to_frame().with_columns(count=pl.lit(1, pl.Int64())))

    def add_counts(self, counts: pl.DataFrame, error: int = 0) -> None:
        """`text` and `count`, what other strings have come to, too low by at most `error`."""
        self.error += error
        self._held.append(counts)
        self._held_rows += counts.height
        if self._held_rows >= 4 * self._capacity:
            self._settle()

    def _settle(self) -> None:
        if not self._held:
            return
        both = pl.concat([self._counts, *self._held]).group_by("text").agg(pl.col("count").sum())
        self._held, self._held_rows = [], 0
        if both.height > 2 * self._capacity:
            lower = int(both["count"].sort(descending=True)[self._capacity])
            both = both.with_columns(pl.col("count") - lower).filter(pl.col("count") > 0)
            self.error += lower
        self._counts = both

    def counts(self) -> pl.DataFrame:
        """`text` and `count` of what is known."""
        self._settle()
        return self._counts

    def shown(self, number: int) -> dict[str, Any]:
        top = self.counts().sort(["count", "text"], descending=[True, False]).head(number)
        return {
            "counter": "exact" if not self.error else "misra-gries",
            "too_low_by_at_most": self.error,
            "strings": top.to_dicts(),
        }


class Checksum:
    """Of rows as (image_id, texts), whatever their order: the sum of the first 128 bits of each row's SHA-256, modulo
    2^128. That is taken of `[image_id, texts, 0]`, and so it is the id of a row that is the first of its kind.

    A sum and not an exclusive or, so that two equal rows do not cancel.
    """

    def __init__(self) -> None:
        self.value = 0

    def add(self, image_ids: pl.Series | Sequence[str | None], contents: pl.Series | Sequence[Any]) -> None:
        """`contents` is what each row says: a list of texts, an object of such lists, or null."""
        if isinstance(contents, pl.Series):
            rows = json_pairs(pl.Series(image_ids, dtype=pl.String()), contents, ",0]")
        else:
            rows = contents_json(image_ids, contents, ",0]")
        self.add_sum(sum128(sha256(rows)))

    def add_hex(self, digests: pl.Series) -> None:
        """Rows of whose digest 32 hex digits are known."""
        self.add_sum(sum128(from_hex(digests)))

    def add_sum(self, value: int) -> None:
        """What another checksum, of other rows, has come to (`value`)."""
        self.value = (self.value + value) % (1 << 128)

    def hex(self) -> str:
        return f"{self.value:032x}"


@dataclass
class Totals:
    """In = kept + held out + dropped + bad, in rows and in texts."""

    given: int = 0
    kept: int = 0
    dropped: int = 0
    bad: int = 0
    held_out: int = 0

    def add(self, other: Totals) -> None:
        self.given += other.given
        self.kept += other.kept
        self.dropped += other.dropped
        self.bad += other.bad

    def shown(self) -> dict[str, int]:
        """`held_out` only where something is."""
        found = {"in": self.given, "kept": self.kept, "held_out": self.held_out}
        found |= {"dropped": self.dropped, "bad": self.bad}
        assert self.given == sum(found.values()) - self.given, f"rows do not add up: {self}"
        return {name: count for name, count in found.items() if count or name != "held_out"}

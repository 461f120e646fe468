"""Mixtures: so much of each value of a column, the total as large as the rows allow or as it is asked for.

AltCLIP's parallel text has the same amount for every language, and in each of them 5 parts of OPUS to 10 of LAION and
3 of CC3M; FILIP340M mixes four sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.amount import apportion
from vlcli.curation.chance import Codes, fingerprints
from vlcli.curation.features import Names, key
from vlcli.curation.ranking import Ranking
from vlcli.curation.sample import DRAW, SHOWN, chosen, strata_of
from vlcli.curation.selection import Decided, Reach, Selection, Verdicts, Walk
from vlcli.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """A column, and the weights of its values; without weights all values that there are have the same."""

    column: str
    weights: tuple[tuple[str, Fraction], ...] = ()

    def __str__(self) -> str:
        if not self.weights:
            return f"{self.column}, equal"
        return self.column + ":" + ",".join(f"{name}={float(weight):g}" for name, weight in self.weights)


def parse_mixture(value: str, option: str = "--mix") -> Recipe:
    """`source:opus=5,laion=10` or `lang`; UsageError for what is neither."""
    column, colon, listed = value.partition(":")
    weights = parse_weights(listed, option, value) if colon else ()
    if not column.strip():
        raise UsageError(f"{option} {value!r} names no column")
    return Recipe(column.strip(), weights)


def parse_weights(listed: str, option: str, value: str) -> tuple[tuple[str, Fraction], ...]:
    """`a=8,b=1` → the names and their weights, in order."""
    found: dict[str, Fraction] = {}
    for part in listed.split(","):
        name, equals, weight = part.rpartition("=")
        name = name.strip()
        if not equals or not name or name in found:
            problem = f"{name!r} is there twice" if name in found else f"{part!r} is not NAME=WEIGHT"
            raise UsageError(f"{option} {value!r}: {problem}")
        found[name] = parse_weight(weight, option, value)
    return tuple(found.items())


def parse_weight(weight: str, option: str, value: str) -> Fraction:
    try:
        number = Fraction(weight.strip())
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if number <= 0:
        raise UsageError(f"{option} {value!r}: {weight!r} is not a number above 0")
    return number


class Mixture(Selection):
    """Rows of each value in proportion to the weights, the ones with the lowest draws.

    With `within`, the proportions hold and the total is the same for each value of that column. Rows without a value,
    or with one that has no weight, are left out.
    """

    name = "mix"
    reach: Reach = "all"

    def __init__(
        self, recipe: Recipe, total: int | None = None, within: str | None = None, **sizes: Any
    ) -> None:
        """`total` (of each value of `within`, where there is one): None takes as many rows as can be; `sizes` are
        those of `Ranking`."""
        self._recipe, self._total, self._within, self._sizes = recipe, total, within, sizes
        columns = [recipe.column] if within is None else [recipe.column, within]
        self.needs = frozenset({DRAW, *map(key, columns)})
        self.reason = f"not in the mixture of {recipe}" + (f" for each {within}" if within else "")
        self._pairs: dict[
            int, tuple[int, int]
        ] = {}  # of a stratum: the values of `within` and of the recipe's column
        self._told: dict[str, Any] = {}

    def decide(self, walk: Walk, names: Names) -> None:
        with Ranking(**self._sizes) as ranking:
            self._decided = Decided(self._draw(walk, names, ranking))

    def _draw(self, walk: Walk, names: Names, ranking: Ranking) -> Verdicts:
        weighed = fingerprints(name for name, _ in self._recipe.weights)
        seen = 0
        for piece in walk():
            values, given = strata_of(piece, self._recipe.column)
            outer, has_outer = strata_of(piece, self._within)
            given &= has_outer
            if len(weighed):
                given &= np.isin(values, weighed)
            strata = self._strata(outer[given], values[given])
            ranking.add(piece[DRAW].to_numpy()[given], strata, np.arange(seen, seen + piece.height)[given])
            seen += piece.height
        for column in (self._recipe.column, self._within):
            if column is not None and seen and not names.met(column):
                option = "--mix" if column == self._recipe.column else "--per-key"
                raise UsageError(f"{option}: no row has a value in {column!r}")
        if not seen:
            return np.zeros(0, np.int8)
        wanted = self._wanted(ranking, weighed, names)
        return chosen(ranking, wanted, seen)

    def _strata(self, outer: Codes, values: Codes) -> Codes:
        """(n,) one number for each pair of values."""
        mixed = outer * np.uint64(0x9E3779B97F4A7C15) ^ values  # of hashes; overflow is meant
        new, first = np.unique(mixed, return_index=True)
        for stratum, place in zip(new.tolist(), first.tolist(), strict=True):
            self._pairs.setdefault(stratum, (int(outer[place]), int(values[place])))
        return mixed

    def _wanted(self, ranking: Ranking, weighed: Codes, names: Names) -> np.ndarray:
        """(strata,) how many rows of each."""
        sizes = {
            self._pairs[s]: n for s, n in zip(ranking.strata.tolist(), ranking.sizes.tolist(), strict=True)
        }
        outers = sorted({outer for outer, _ in sizes}) or [0]
        if len(weighed):
            values, weights = weighed.tolist(), [weight for _, weight in self._recipe.weights]
        else:
            values = sorted({value for _, value in sizes})
            weights = [Fraction(1)] * len(values)
        called = dict(zip(weighed.tolist(), (name for name, _ in self._recipe.weights), strict=True))
        shown = [
            called.get(value) or names.name(self._recipe.column, value) or f"#{value:x}" for value in values
        ]
        most, scarce = self._most(sizes, outers, values, weights)
        total = most if self._total is None else self._total
        if total > most or not total:
            outer, place = scarce
            where = "" if self._within is None else f" of {self._within} {names.name(self._within, outer)}"
            there = sizes.get((outer, values[place]), 0)
            option = f"--mix {self._recipe.column}"
            if not most:
                raise UsageError(f"{option}: no row{where} has {shown[place]!r}" if not there else
                                 f"{option}: too few rows{where} have {shown[place]!r}: {there:,}")  # fmt: skip
            each = "" if self._within is None else f" for each {self._within}"
            raise UsageError(
                f"{option}: only {there:,} rows{where} have {shown[place]!r}, too few for a total of {total:,}{each}",
                remedy=f"--sample {most} can be had",
            )
        parts, _ = apportion(total, weights)
        wanted = {(outer, value): part for outer in outers for value, part in zip(values, parts, strict=True)}
        self._tell(sizes, wanted, outers, values, shown, names, total)
        return np.array([wanted[self._pairs[s]] for s in ranking.strata.tolist()], np.int64)

    @staticmethod
    def _most(
        sizes: dict[tuple[int, int], int],
        outers: Sequence[int],
        values: Sequence[int],
        weights: list[Fraction],
    ) -> tuple[int, tuple[int, int]]:
        """The largest total (of each outer value), and the pair that limits it: outer value, place of the inner."""
        whole = sum(weights)
        return min(
            (int(sizes.get((outer, value), 0) * whole / weight), (outer, place))
            for outer in outers
            for place, (value, weight) in enumerate(zip(values, weights, strict=True))
        )

    def _tell(
        self,
        sizes: dict[tuple[int, int], int],
        wanted: dict[tuple[int, int], int],
        outers: Sequence[int],
        values: Sequence[int],
        shown: Sequence[str],
        names: Names,
        total: int,
    ) -> None:
        self._told = {"total": total * len(outers)}
        if self._within is not None:
            self._told |= {"of_each": total, "values": len(outers)}
        if len(wanted) > SHOWN:
            return
        lines: list[dict[str, Any]] = [
            ({} if self._within is None else {"key": names.name(self._within, outer)})
            | {"value": name, "of": sizes.get((outer, value), 0), "taken": wanted[outer, value]}
            for outer in outers
            for value, name in zip(values, shown, strict=True)
        ]
        if self._within is not None:
            lines.sort(key=lambda line: str(line["key"]))
        elif not self._recipe.weights:
            lines.sort(key=lambda line: (-line["of"], line["value"]))
        self._told["by_value"] = lines

    def select(self, rows: pl.DataFrame) -> Verdicts:
        return self._decided.next(rows.height)

    def told(self) -> dict[str, Any]:
        return self._told

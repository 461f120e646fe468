"""Splits in a ratio: 8:1:1 in ZERO's downstream sets, with as many positives and negatives in every part (§2.2).

All rows of one image go to one side. An image with one row can go anywhere, so these make the numbers come out: the
images with several rows are dealt first, the largest before the others, to the sides in proportion; then the rest
fill what is left, by their draws. Inside a stratum the sides are then exact to the row: largest remainders, which
are carried on from stratum to stratum, so that the whole comes out as well. Where too few images with one row are
left for that, no side has more than the rows of one image, less one, too many; where an image has rows of several
strata, it goes where the sum of squares says.

Memory: about 30 bytes for each row of an image with several, and two for each row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.amount import apportion
from vlcli.curation.chance import Codes
from vlcli.curation.features import Names, image_draw, key
from vlcli.curation.mixture import parse_weight, parse_weights
from vlcli.curation.ranking import Buckets, Ranking
from vlcli.curation.sample import SHOWN
from vlcli.curation.selection import Decided, Reach, Selection, Verdicts, Walk
from vlcli.errors import UsageError

COLUMN = "split"  # where the side of a row is written
NAMES = ("train", "val", "test")
_DRAW = image_draw("split")
_MOST = 100


@dataclass(frozen=True)
class Sides:
    """The sides' names and weights, in order."""

    weights: tuple[tuple[str, Fraction], ...]

    def __str__(self) -> str:
        return ",".join(f"{name}={float(weight):g}" for name, weight in self.weights)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.weights]


def parse_sides(value: str, option: str = "--split") -> Sides:
    """`8:1:1` (train, val, test), `9:1` (train, val) or `train=9,dev=1`; UsageError for anything else."""
    if "=" in value:
        found = parse_weights(value, option, value)
    else:
        parts = value.split(":")
        if len(parts) > len(NAMES):
            raise UsageError(
                f"{option} {value!r}: more than three sides need names", remedy="NAME=WEIGHT,..."
            )
        found = tuple(zip(NAMES, (parse_weight(p, option, value) for p in parts), strict=False))
    if not 2 <= len(found) <= _MOST:
        raise UsageError(f"{option} {value!r}: from 2 to {_MOST} sides can be had")
    return Sides(found)


class RatioSplit(Selection):
    """Takes all rows, each for a side; the verdict is the side's number."""

    name = "split"
    reason = ""  # leaves nothing out
    reach: Reach = "all"

    def __init__(self, sides: Sides, column: str | None = None, **sizes: Any) -> None:
        """`column` has the strata; rows without a value in it are one more. `sizes` are those of `Ranking`."""
        self.sides, self._column, self._sizes = sides, column, sizes
        self.needs = frozenset({_DRAW} if column is None else {_DRAW, key(column)})
        self._told: dict[str, Any] = {}

    def decide(self, walk: Walk, names: Names) -> None:
        with Buckets(**self._sizes) as rows, Ranking(**self._sizes) as singles:
            seen = 0
            for piece in walk():
                strata = np.zeros(piece.height, np.uint64)
                if self._column is not None:
                    strata = piece[key(self._column)].fill_null(0).to_numpy()
                numbers = np.arange(seen, seen + piece.height, dtype=np.uint64)
                rows.add(piece[_DRAW].to_numpy(), strata, numbers)
                seen += piece.height
            if self._column is not None and seen and not names.met(self._column):
                raise UsageError(f"--stratify {self._column}: no row has a value in {self._column!r}")
            images = _Images.sift(rows, singles)
            dealer = _Dealer(self.sides, images.strata(singles))
            verdicts = np.zeros(seen, np.int8)
            images.deal(dealer, verdicts)
            rests = [dealer.rest(stratum) for stratum in singles.strata.tolist()]
            cuts = np.array(rests, np.int64).reshape(-1, len(self.sides.names)).cumsum(axis=1)
            for place, rank, row in singles:
                verdicts[row] = (rank[:, None] >= cuts[place]).sum(axis=1)
        self._told = self._tell(dealer, len(images), names)
        self._decided = Decided(verdicts)

    def _tell(self, dealer: _Dealer, shared: int, names: Names) -> dict[str, Any]:
        taken = {stratum: dealer.taken(stratum) for stratum in dealer.quotas}
        sums = [sum(parts[side] for parts in taken.values()) for side in range(len(self.sides.names))]
        told: dict[str, Any] = {
            "sides": dict(zip(self.sides.names, sums, strict=True)),
            "images_of_several_rows": shared,
        }
        if self._column is None:
            return told
        told |= {"stratify": self._column, "strata": len(taken)}
        lines = [
            {
                "value": names.name(self._column, stratum) if stratum else None,
                "sides": dict(zip(self.sides.names, parts, strict=True)),
            }
            for stratum, parts in taken.items()
        ]
        known = all(line["value"] is not None for line, stratum in zip(lines, taken, strict=True) if stratum)
        if len(lines) <= SHOWN and known:
            told["by_value"] = sorted(lines, key=lambda line: (line["value"] is None, line["value"] or ""))
        return told

    def select(self, rows: pl.DataFrame) -> Verdicts:
        return self._decided.next(rows.height)

    def told(self) -> dict[str, Any]:
        return self._told


class _Images:
    """The images that have several rows, walked over the largest first and by their draws among equals."""

    def __init__(
        self, draws: Codes, starts: NDArray[np.int64], strata: Codes, rows: NDArray[np.int64]
    ) -> None:
        """Rows of one image stand together, in the order of their strata; `starts` has their end as well."""
        self._starts, self._strata, self._rows = starts, strata, rows
        self._order = np.lexsort((draws, -np.diff(starts)))

    @classmethod
    def sift(cls, rows: Buckets, singles: Ranking) -> _Images:
        """From records of (draw, stratum, row); a row that is its image's only one goes to `singles`."""
        draws, lengths, strata, numbers = (
            [np.zeros(0, kind)] for kind in (np.uint64, np.int64, np.uint64, np.int64)
        )
        for records in rows:
            records = records[np.lexsort((records[:, 2], records[:, 1], records[:, 0]))]
            starts = np.flatnonzero(np.concatenate(([True], records[1:, 0] != records[:-1, 0])))
            sizes = np.diff(np.append(starts, len(records)))
            alone = np.repeat(sizes == 1, sizes)
            singles.add(records[alone, 0], records[alone, 1], records[alone, 2].astype(np.int64))
            draws.append(records[starts[sizes > 1], 0])
            lengths.append(sizes[sizes > 1])
            strata.append(records[~alone, 1])
            numbers.append(records[~alone, 2].astype(np.int64))
        ends = np.concatenate(([0], np.concatenate(lengths).cumsum()))
        return cls(np.concatenate(draws), ends, np.concatenate(strata), np.concatenate(numbers))

    def strata(self, singles: Ranking) -> dict[int, int]:
        """All strata, in order, and their rows."""
        sizes = Counter(dict(zip(singles.strata.tolist(), singles.sizes.tolist(), strict=True)))
        sizes.update(
            dict(zip(*(part.tolist() for part in np.unique(self._strata, return_counts=True)), strict=True))
        )
        return dict(sorted(sizes.items()))

    def __len__(self) -> int:
        return len(self._order)

    def deal(self, dealer: _Dealer, verdicts: Verdicts) -> None:
        """Write the side of each image into the verdicts of its rows."""
        sides = np.zeros(len(self), np.int8)
        starts = self._starts.tolist()
        for image in self._order.tolist():
            sides[image] = dealer.deal(self._strata[starts[image] : starts[image + 1]].tolist())
        verdicts[self._rows] = np.repeat(sides, np.diff(self._starts))


class _Dealer:
    """How many rows every side of every stratum should have, and still wants."""

    def __init__(self, sides: Sides, sizes: dict[int, int]) -> None:
        """`sizes` are the rows of each stratum."""
        weights, owed = [weight for _, weight in sides.weights], None
        self.quotas: dict[int, list[int]] = {}
        for stratum, size in sizes.items():
            self.quotas[stratum], owed = apportion(size, weights, owed)
        self._wants = {stratum: list(parts) for stratum, parts in self.quotas.items()}
        self._sides = range(len(weights))

    def deal(self, strata: list[int]) -> int:
        """The side of an image whose rows are of these strata, which are in order.

        Of the sides that have room for all of it, the one that lacks the greatest share of what it should have; where
        there is none, the one that lacks most, which leaves the smallest sum of squares. Of equals the first.
        """
        if strata[0] == strata[-1]:
            side = self._side(self._wants[strata[0]], self.quotas[strata[0]], len(strata))
            self._wants[strata[0]][side] -= len(strata)
            return side
        wanted = Counter(strata)
        room = [j for j in self._sides if all(self._wants[s][j] >= number for s, number in wanted.items())]

        def lack(side: int) -> float:
            return sum(
                number * self._wants[s][side] / (self.quotas[s][side] if room else 1)
                for s, number in wanted.items()
            )

        side = max(room or self._sides, key=lack)
        for stratum, number in wanted.items():
            self._wants[stratum][side] -= number
        return side

    @staticmethod
    def _side(wants: list[int], quotas: list[int], size: int) -> int:
        """As `deal` says, for an image of one stratum, which nearly all are."""
        found, most = -1, 0.0
        for side, want in enumerate(wants):
            if want >= size and want / quotas[side] > most:
                found, most = side, want / quotas[side]
        return found if found >= 0 else wants.index(max(wants))

    def rest(self, stratum: int) -> list[int]:
        """How many of the rows that are left go to each side; asked for once, at the end."""
        wants = self._wants[stratum]
        lacking = [Fraction(max(number, 0)) for number in wants]
        parts = apportion(sum(wants), lacking)[0] if sum(wants) else [0] * len(wants)
        self._wants[stratum] = [number - part for number, part in zip(wants, parts, strict=True)]
        return parts

    def taken(self, stratum: int) -> list[int]:
        return [quota - want for quota, want in zip(self.quotas[stratum], self._wants[stratum], strict=True)]

"""How much of something is wanted: a number, or a share of what there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from vlcli.errors import UsageError

_AMOUNT = re.compile(r"\s*(\d+)(\.\d+)?\s*(%)?\s*", re.ASCII)


@dataclass(frozen=True)
class Amount:
    """`number`, or `share` of the whole, exactly: 0.1 % is no binary fraction."""

    number: int | None = None
    share: Fraction | None = None

    def __str__(self) -> str:
        return f"{float(self.share * 100):g}%" if self.share is not None else str(self.number)

    def of(self, whole: int) -> int:
        """How many of `whole`: the number, at most all; or the share, rounded half up."""
        if self.share is None:
            assert self.number is not None
            return min(self.number, whole)
        return int(self.share * whole + Fraction(1, 2))


def parse_amount(value: str, option: str) -> Amount:
    """`N` from 1 on, or `P%` in (0, 100]; UsageError for anything else."""
    match = _AMOUNT.fullmatch(value)
    if match is not None:
        number = Fraction(match[1] + (match[2] or ""))
        if match[3] and 0 < number <= 100:
            return Amount(share=number / 100)
        if not match[2] and not match[3] and number > 0:
            return Amount(number=int(number))
    raise UsageError(f"{option} {value!r} is neither a number from 1 on nor a percentage such as 0.5%")


def apportion(
    total: int, weights: Sequence[Fraction], owed: Sequence[Fraction] | None = None
) -> tuple[list[int], list[Fraction]]:
    """`total` in parts of these weights, each rounded down or up: the largest remainders get what is left over.

    Of equal remainders the first wins. `owed` is what earlier apportionments left each part short of (negative:
    ahead); the second list is the same after this one. Passed on from stratum to stratum, it makes the sums come
    out as well, where the first part would otherwise win every tie.
    """
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(part) for part in exact]
    short = [e - p + o for e, p, o in zip(exact, parts, owed or [Fraction(0)] * len(parts), strict=True)]
    # A part without a remainder is exact: rounding it up would take it beyond its share.
    fractional = [i for i, (e, p) in enumerate(zip(exact, parts, strict=True)) if e != p]
    for i in sorted(fractional, key=lambda i: -short[i])[: total - sum(parts)]:
        parts[i] += 1
        short[i] -= 1
    return parts, short

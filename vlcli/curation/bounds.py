"""Bounds with their operator: `>200`, `<=3`; a bare N is at least N for minima, at most N for maxima."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vlcli.errors import UsageError

Side = Literal["min", "max"]

_OPERATORS: dict[Side, tuple[str, ...]] = {"min": (">=", ">"), "max": ("<=", "<")}
_TEST: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_BOUND = re.compile(r"\s*([<>]=?)?\s*(\d+(?:\.\d+)?)\s*", re.ASCII)


@dataclass(frozen=True)
class Bound:
    """An operator and a number; what is within the bound is kept."""

    operator: str
    value: int | float

    def __str__(self) -> str:
        return f"{self.operator}{self.value}"

    def holds(self, measured: Any, scale: Any = 1) -> Any:
        """`measured OP value * scale`, on numbers and polars expressions alike."""
        return _TEST[self.operator](measured, self.value * scale)


def parse_bound(value: str | int | float, side: Side, name: str, *, whole: bool = True) -> Bound:
    """The bound of a minimum or a maximum; UsageError for a wrong operator or what is no number."""
    match = None if isinstance(value, bool) else _BOUND.fullmatch(str(value))
    allowed = " or ".join(f"{o}N" for o in _OPERATORS[side])
    if match is None:
        raise UsageError(
            f"{name} {str(value)!r} is not a bound", remedy=f"write N, {allowed} (in quotes), or off"
        )
    sign, digits = match.groups()
    sign = sign or _OPERATORS[side][0]
    if sign not in _OPERATORS[side]:
        kind = "minimum" if side == "min" else "maximum"
        raise UsageError(f"{name} {str(value)!r}: a {kind} takes {allowed}, not {sign}")
    number: int | float = float(digits) if "." in digits else int(digits)
    if whole and isinstance(number, float):
        raise UsageError(f"{name} {str(value)!r}: a whole number is needed")
    assert math.isfinite(number)
    return Bound(sign, number)

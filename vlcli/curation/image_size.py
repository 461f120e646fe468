"""Image rules, decided from width and height alone: no pixel is decoded."""

from __future__ import annotations

import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule

_SHORTER = pl.min_horizontal("width", "height")
_LONGER = pl.max_horizontal("width", "height")


def min_side(bound: Bound) -> Rule:
    """`min(w, h) > 200` in Wukong §3: an image of exactly 200 px is dropped."""
    return Rule(
        "min-side", "row", ("width", "height"), bound.holds(_SHORTER), f"shorter side is not {bound} px"
    )


def min_any_side(bound: Bound) -> Rule:
    """ZERO App. A drops an image when both sides are below 100 px: the longer one decides, 100 is kept (D3)."""
    return Rule(
        "min-any-side", "row", ("width", "height"), bound.holds(_LONGER), f"longer side is not {bound} px"
    )


def max_aspect(bound: Bound) -> Rule:
    """Longer over shorter side, as a product of integers: exact at the bound.

    Wukong §3 and FILIP §3.3 keep exactly 3, ALIGN §3 drops it; ZERO App. A keeps 1/4 <= w/h <= 4.
    """
    return Rule(
        "max-aspect",
        "row",
        ("width", "height"),
        bound.holds(_LONGER, scale=_SHORTER),
        f"longer side over shorter side is not {bound}",
    )

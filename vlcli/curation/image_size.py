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


def max_aspect(bound: Bound) -> Rule:
    """`max(w, h) / min(w, h) <= 3` in Wukong §3, as a product of integers: exactly 3 is kept."""
    return Rule(
        "max-aspect",
        "row",
        ("width", "height"),
        bound.holds(_LONGER, scale=_SHORTER),
        f"longer side over shorter side is not {bound}",
    )

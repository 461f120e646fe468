"""What a rule is: a name, a scope, the columns it needs, an expression that says *keep*, and a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from vlcli.curation.survey import Survey

Scope = Literal["row", "text", "corpus"]


@dataclass(frozen=True)
class Rule:
    """Keeps what `keep` holds for; null counts as no.

    `scope` says what is judged and reported: "row" (one verdict a row), "text" (one verdict a text; a row
    goes when none of its texts is left), "corpus" (needs a count over the whole input). `judges` is "row" or
    "text" for all three. `columns` are read from the row (or from the text's own frame: `text` and the
    measures of `measures.py`); columns that the source may lack (`width`, `query_rank`, …) are supplied
    before the rule is asked, those of a rule that counts by its `survey`.
    """

    name: str  # the option without its dashes, also the name in reports and rejects
    scope: Scope
    columns: tuple[str, ...]
    keep: pl.Expr
    reason: str
    judges: Literal["row", "text"] = "row"
    survey: Callable[[], Survey] | None = None  # makes what supplies the first of `columns`
    costly: bool = False  # judged only where all rules before it have passed, not in one pass with them


@dataclass(frozen=True)
class Change:
    """Rewrites texts and keeps them all: `apply(texts)` gives the new texts and what was replaced."""

    name: str
    reason: str
    apply: Callable[[list[str]], tuple[list[str], list[str]]]
    scope: Scope = "text"


Step = Rule | Change

"""The rule on sensitive words; the list is the user's (Wukong's is not published)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from vlcli.curation.rule import Rule
from vlcli.curation.sensitive import contains_any, load_words


def sensitive_words(path: Path) -> Rule:
    """Drops a text that holds any word of the file, as a substring (Wukong §3)."""
    keep = ~contains_any(pl.col("text"), load_words(path))
    return Rule(
        "sensitive-words", "text", ("text",), keep, "holds a word of the sensitive list", judges="text"
    )

"""What a number was measured on and with: no result is printed without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from vlcli.curation.language import Language
from vlcli.curation.language import lang as language_rule

# Columns of the data that name what it is, where they exist.
NAMING = ("split", "lang")


def describe(
    model: Any, table: Any, texts: Sequence[str], *, split: str | None = None, lang: str | None = None
) -> dict[str, Any]:
    """`checkpoint` (hash), `data`, `split`, `split_hash`, `lang` and `similarity` of a result.

    `split` and `lang` are what the caller says, else what those columns of the data say (several values
    joined by "+"); without either, the split goes by its hash, and the language is "zh" where most of
    `texts` are Chinese by their script, else "und".
    """
    split = split or _values(table, "split") or f"sha256:{table.split_hash[:12]}"
    lang = lang or _values(table, "lang") or language_of(texts)
    return {
        "checkpoint": model.checkpoint_hash,
        "data": table.source or "<stdin>",
        "split": split,
        "split_hash": table.split_hash,
        "lang": lang,
        "similarity": model.similarity_kind,
    }


def _values(table: Any, column: str) -> str | None:
    frame: pl.DataFrame = table.frame
    if column not in frame.columns:
        return None
    return "+".join(str(v) for v in frame[column].unique(maintain_order=True) if v is not None) or None


def language_of(texts: Sequence[str]) -> str:
    """`zh` where most of the texts are Chinese by their script, else `und`."""
    rule = language_rule(Language("zh"))
    assert rule is not None
    chinese = pl.DataFrame({"text": list(texts)}, schema={"text": pl.String}).select(rule.keep.alias("zh"))
    return "zh" if chinese["zh"].sum() * 2 >= len(texts) > 0 else "und"

"""Texts that run from right to left (Arabic, Hebrew) on lines that run from left to right."""

from __future__ import annotations

import unicodedata

# Marks, embeddings, overrides and isolates of the bidirectional algorithm (UAX 9): they have no glyph.
CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LEFT_TO_RIGHT, _FIRST_STRONG, _POP = "\u200e", "\u2068", "\u2069"


def runs_left(text: str) -> bool:
    """Whether any letter of it is written from right to left."""
    return any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


def isolated(text: str) -> str:
    """`text`, kept from what stands beside it: a number after an Arabic word would change sides with it. A text
    without such letters is returned as it is.
    """
    return f"{_FIRST_STRONG}{text}{_POP}" if runs_left(text) else text


def after(head: str, text: str) -> str:
    """`head` and then `text`, in this order on the page whichever way `text` runs."""
    return f"{_LEFT_TO_RIGHT}{head}{isolated(text)}" if runs_left(text) else head + text

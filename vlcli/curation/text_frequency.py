"""The rule on texts that stand too often in the corpus (Wukong §3: more than 10 times is boiler-plate)."""

from __future__ import annotations

import numpy as np
import polars as pl

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule

PLAIN = "plain"  # the text as it is compared: NFC and stripped (spec D4)
COUNT = "text_count"  # rows of the corpus with this text, where that is over the bound; else null


def plain(column: str = "text") -> pl.Expr:
    return pl.col(column).str.normalize("NFC").str.strip_chars().alias(PLAIN)


def max_text_freq(bound: Bound) -> Rule:
    """Drops every copy of a text that too many rows have: 10 are kept, 11 are dropped."""
    keep = pl.col(COUNT).is_null() | bound.holds(pl.col(COUNT))
    return Rule(
        "max-text-freq", "corpus", (COUNT,), keep, f"rows with this text are not {bound}", judges="text"
    )


class FrequentTexts:
    """The texts over the bound and their counts, to be asked a batch at a time.

    A sorted array of hashes finds the few candidates; the strings themselves decide. Building a join's hash
    table anew for every batch would cost as much as all of these texts each time.
    """

    def __init__(self, found: pl.DataFrame) -> None:
        """`found` has PLAIN and COUNT (`TextCounts.over`)."""
        self.found = found
        hashes = found[PLAIN].hash().to_numpy()
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._by_hash = found[order]

    def counts(self, texts: pl.Series) -> pl.Series:
        """The count of each text of `texts` (any spelling), null where it is within the bound."""
        plains = texts.to_frame("text").select(plain()).to_series()
        counts = np.zeros(len(plains), np.int64)
        hashes = plains.hash().to_numpy()
        at = np.searchsorted(self._hashes, hashes)
        left = np.arange(len(plains))
        while len(left):
            inside = at[left] < len(self._hashes)
            left = left[inside]
            left = left[self._hashes[at[left]] == hashes[left]]
            if not len(left):
                break
            same = (self._by_hash[PLAIN][at[left]] == plains[left]).to_numpy()
            hits = left[same]
            counts[hits] = self._by_hash[COUNT].to_numpy()[at[hits]]
            left = left[~same]  # another text with the same hash: it stands next to this one
            at[left] += 1
        found = pl.Series(COUNT, counts)
        return found.set(found == 0, None)

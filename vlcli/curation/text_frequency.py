"""The rule on texts that stand too often in the corpus (Wukong §3: more than 10 times is boiler-plate)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.records.batch import Batch
from vlcli.records.digest import key64

PLAIN = "plain"  # the text as it is compared: NFC and stripped (spec D4)
COUNT = "text_count"  # rows of the corpus with this text, where that is over the bound; else null


# Scripts and signs that NFC leaves as they are, whatever stands beside them: what most captions are made of alone.
_UNCHANGED = r"^[\x00-\x7f\u3000-\u3029\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff5e]*$"


def plain(column: str = "text") -> pl.Expr:
    """NFC and stripped; normalisation, which is slow, is left to those texts that it may change."""
    return pl.col(column).map_batches(_normalised, return_dtype=pl.String()).str.strip_chars().alias(PLAIN)


def _normalised(texts: pl.Series) -> pl.Series:
    rows = (~texts.str.contains(_UNCHANGED)).arg_true()
    return texts.clone().scatter(rows, texts.gather(rows).str.normalize("NFC")) if len(rows) else texts


def max_text_freq(bound: Bound) -> Rule:
    """Drops every copy of a text that too many rows have: 10 are kept, 11 are dropped."""
    keep = pl.col(COUNT).is_null() | bound.holds(pl.col(COUNT))
    reason = f"rows with this text are not {bound}"
    return Rule(
        "max-text-freq", "corpus", (COUNT,), keep, reason, judges="text", survey=lambda: TextFrequency(bound)
    )


class TextFrequency(Survey):
    """How many rows have each text."""

    def __init__(self, bound: Bound) -> None:
        from vlcli.curation.text_counts import TextCounts

        self._bound, self._counts = bound, TextCounts()
        self._frequent: FrequentTexts | None = None

    def add(self, batch: Batch, texts: pl.DataFrame, standing: NDArray[np.bool_]) -> None:
        self._counts.add(texts)

    def save(self, folder: Path) -> None:
        self._counts.save(folder)

    def merge(self, folders: Sequence[Path]) -> None:
        self._counts.merge(folders)

    def finish(self) -> None:
        self._frequent = FrequentTexts(self._counts.over(self._bound))
        self._counts.close()

    def freeze(self, folder: Path) -> None:
        assert self._frequent is not None
        self._frequent.freeze(folder)

    def thaw(self, folder: Path) -> None:
        self._frequent = FrequentTexts.thaw(folder)

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        assert self._frequent is not None
        return self._frequent.look_up(batch, texts)

    def found(self) -> pl.DataFrame | None:
        return self._frequent.found if self._frequent is not None else None

    def close(self) -> None:
        self._counts.close()


class FrequentTexts:
    """The texts over the bound and their counts, to be asked a batch at a time.

    A sorted array of hashes finds the few candidates; the strings themselves decide. Building a join's hash
    table anew for every batch would cost as much as all of these texts each time.
    """

    def __init__(self, found: pl.DataFrame) -> None:
        """`found` has PLAIN and COUNT (`TextCounts.over`)."""
        hashes = key64(found[PLAIN])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._by_hash = found[order]

    @property
    def found(self) -> pl.DataFrame:
        """PLAIN and COUNT, the most frequent first."""
        return self._by_hash.sort([COUNT, PLAIN], descending=[True, False])

    def freeze(self, folder: Path) -> None:
        """Write it to `folder`, for `thaw` to map."""
        np.save(folder / "hashes.npy", self._hashes)
        self._by_hash.write_ipc(folder / "texts.arrow", compression="uncompressed")

    @classmethod
    def thaw(cls, folder: Path) -> FrequentTexts:
        """What another has frozen, without a copy of the hashes in this process's memory."""
        self = cls.__new__(cls)
        self._hashes = np.load(folder / "hashes.npy", mmap_mode="r")
        self._by_hash = pl.read_ipc(folder / "texts.arrow")
        return self

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        """The counts of texts as a rule asks for them; what is no text has none."""
        counts = self.counts(texts["text"])
        return counts.set(~texts["is_text"], None)

    def counts(self, texts: pl.Series) -> pl.Series:
        """The count of each text of `texts` (any spelling), null where it is within the bound."""
        return self.of(texts.to_frame("text").select(plain()).to_series())

    def of(self, plains: pl.Series) -> pl.Series:
        """The count of each string, spelt as PLAIN is; null where it is within the bound, or null itself."""
        counts = np.zeros(len(plains), np.int64)
        hashes = key64(plains)
        at = np.searchsorted(self._hashes, hashes)
        left = np.flatnonzero(plains.is_not_null().to_numpy())
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

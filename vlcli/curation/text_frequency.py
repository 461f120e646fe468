"""The rule on texts that stand too often in the corpus (Wukong §3: more than 10 times is boiler-plate)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.curation.bounds import Bound
from vlcli.curation.key_set import Keys, KeySet
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.records.batch import Batch
from vlcli.records.digest import key64
from vlcli.records.letters import holding

PLAIN = "plain"  # the text as it is compared: NFC and stripped (spec D4)
COUNT = "text_count"  # rows of the corpus with this text, where that is over the bound; else null


# Scripts and signs that NFC leaves as they are, whatever stands beside them: what most captions are made of alone.
_UNCHANGED = r"^[\x00-\x7f\u3000-\u3029\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff5e]*$"


def plain(column: str = "text") -> pl.Expr:
    """NFC and stripped; normalisation, which is slow, is left to those texts that it may change."""
    return pl.col(column).map_batches(_normalised, return_dtype=pl.String()).str.strip_chars().alias(PLAIN)


def _normalised(texts: pl.Series) -> pl.Series:
    # Ideographs from U+4000 on and ASCII are told by their bytes; a pattern is slower, and looks at the others alone.
    rows = pl.Series(np.flatnonzero(holding(texts, lambda b: (b - np.uint8(0xC2) < 0x22) | (b > 0xE9))))
    rows = rows.filter(~texts.gather(rows).str.contains(_UNCHANGED))
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
        from vlcli.curation.repeats import Repeats

        self._bound, self._counts = bound, Repeats()
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

    Keys in order find the few candidates; the strings themselves decide. Building a join's hash table anew for every
    batch would cost as much as all of these texts each time.
    """

    def __init__(self, found: pl.DataFrame) -> None:
        """`found` has PLAIN and COUNT (`Repeats.over`)."""
        keys = key64(found[PLAIN])
        order = np.argsort(keys, kind="stable")
        self._settle(keys[order], found[order])

    def _settle(self, keys: Keys, by_key: pl.DataFrame) -> None:
        self._keys, self._by_key = keys, by_key
        self._set = KeySet(keys)

    @property
    def found(self) -> pl.DataFrame:
        """PLAIN and COUNT, the most frequent first."""
        return self._by_key.sort([COUNT, PLAIN], descending=[True, False])

    def freeze(self, folder: Path) -> None:
        """Write it to `folder`, for `thaw` to map."""
        np.save(folder / "keys.npy", self._keys)
        self._by_key.write_ipc(folder / "texts.arrow", compression="uncompressed")

    @classmethod
    def thaw(cls, folder: Path) -> FrequentTexts:
        """What another has frozen, without a copy of the keys in this process's memory."""
        self = cls.__new__(cls)
        self._settle(np.load(folder / "keys.npy", mmap_mode="r"), pl.read_ipc(folder / "texts.arrow"))
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
        keys = key64(plains)
        rows, at = self._set.find(keys)
        given = plains.is_not_null().to_numpy()[rows]
        rows, at = rows[given], at[given]
        while len(rows):
            same = (self._by_key[PLAIN][at] == plains[rows]).to_numpy()
            counts[rows[same]] = self._by_key[COUNT].to_numpy()[at[same]]
            rows, at = (
                rows[~same],
                at[~same] + 1,
            )  # another text with the same key: it stands next to this one
            more = at < len(self._keys)
            rows, at = rows[more], at[more]
            more = self._keys[at] == keys[rows]
            rows, at = rows[more], at[more]
        found = pl.Series(COUNT, counts)
        return found.set(found == 0, None)

"""A table of pairs for training and evaluation: what the rows say in memory, their pixels on disk."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl

from vlcli.shards.columns import Column
from vlcli.shards.pixels import ChosenPart, Location, Part

_CONTENT = re.compile(r"[0-9a-f]{64}")  # an image_id that is the sha256 of the picture


class Damaged(NamedTuple):
    """A shard that was passed over. `pairs` is how many it is said to have; 1 where nothing says."""

    file: str
    pairs: int
    cause: str


class Share(NamedTuple):
    """Rows `start` to `stop` of a table are one source of a mixture, and `weight` is how much of it is drawn."""

    source: str
    start: int
    stop: int
    weight: float


@dataclass
class PairTable:
    """Pairs row by row. `groups[i]` is None where the row has no group; `frame` has the columns that were
    asked for; `shares` say how much of each source training draws, where that is not each pair once.
    """

    source: str
    ids: Column[str] = field(default_factory=Column)
    image_ids: Column[str] = field(default_factory=Column)
    texts: Column[list[str]] = field(default_factory=Column)
    candidates: Column[list[str]] = field(default_factory=Column)
    groups: Column[str | None] = field(default_factory=Column)
    frame: pl.DataFrame = field(default_factory=pl.DataFrame)
    parts: list[Part] = field(default_factory=list)
    shares: tuple[Share, ...] = ()
    damaged: list[Damaged] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def __post_init__(self) -> None:
        self._starts = [0]

    def _add_part(self, part: Part) -> None:
        self.parts.append(part)
        self._starts.append(self._starts[-1] + len(part))

    def extend(self, other: PairTable) -> None:
        """Put the pairs of another table, all but its `frame`, behind one's own."""
        for mine, theirs in (
            (self.ids, other.ids),
            (self.image_ids, other.image_ids),
            (self.texts, other.texts),
            (self.candidates, other.candidates),
            (self.groups, other.groups),
        ):
            mine.extend(theirs)  # type: ignore[arg-type]
        for part in other.parts:
            self._add_part(part)
        self.damaged += other.damaged

    def image_bytes(self, i: int) -> bytes:
        """The encoded image of row i, read from where it lies. Any thread may call it."""
        part, row = self._place(i)
        return part.read(row)

    def locate(self, i: int) -> Location:
        """Where the image of row i lies: all that another process needs in order to read it."""
        part, row = self._place(i)
        return part.locate(row)

    def _place(self, i: int) -> tuple[Part, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = bisect_right(self._starts, i) - 1
        return self.parts[part], i - self._starts[part]

    def chosen(self, rows: Sequence[int], texts: Sequence[list[str]]) -> PairTable:
        """A table of `rows`, in that order, the k-th of which has `texts[k]`: another language's, say. Pictures are
        read from where they lie.
        """
        table = PairTable(
            source=self.source,
            ids=Column(self.ids.take(rows)),
            image_ids=Column(self.image_ids.take(rows)),
            texts=Column(texts),
            candidates=Column(self.candidates.take(rows)),
            groups=Column(self.groups.take(rows)),
            frame=self.frame[list(rows)],
        )
        table._add_part(ChosenPart(self, rows))
        return table

    @cached_property
    def images(self) -> int:
        """How many different images the rows show."""
        shown = [hash(image) for image in self.image_ids if image is not None]
        return len(np.unique(np.array(shown, np.int64)))

    def picture_key(self, i: int) -> str:
        """What tells the picture of row i from others by its bytes: an `image_id` may be no more than a file's name."""
        image = self.image_ids[i]
        return image if _CONTENT.fullmatch(image) else hashlib.sha256(self.image_bytes(i)).hexdigest()

    @cached_property
    def pictures_hash(self) -> str | None:
        """sha256 over the bytes of all pictures whose `image_id` does not say them, in order, each once; None where
        there are none. It reads them: `split_hash` does not, and is the same for other pictures of the same names."""
        named = {image: i for i, image in reversed(list(enumerate(self.image_ids))) if image is not None}
        rows = sorted(i for image, i in named.items() if not _CONTENT.fullmatch(image))
        digest = hashlib.sha256()
        for i in rows:
            digest.update(self.picture_key(i).encode())
        return digest.hexdigest() if rows else None

    @cached_property
    def split_hash(self) -> str:
        """sha256 over (image_id, texts) of all rows in order: names the data that a number was measured
        on. Asked for when the table is whole.
        """
        digest = hashlib.sha256()
        for image_id, texts in zip(self.image_ids, self.texts, strict=True):
            digest.update(orjson.dumps([image_id, texts]))
            digest.update(b"\n")
        return digest.hexdigest()

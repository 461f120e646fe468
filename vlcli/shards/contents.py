"""What rows and shards hold, as numbers that depend neither on order nor on form: is anything lost?

`rows`: all rows as (id, texts), those too of which a shard has no image. The id is given once and carried on, so this
number is the same for a file of rows and for the shards made of it.
`pairs`: as (image_id, texts), the number that `filter --report` has. In a shard those are its samples, and an image_id
that was no more than a path has become the sha256 of the image: there it is the same only where it was one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlcli.curation.tally import Checksum
from vlcli.records.identity import Identity
from vlcli.records.reader import read
from vlcli.shards.layout import SIDECAR_MARK, SUCCESS
from vlcli.shards.reader import read_sidecar, sidecar_metadata
from vlcli.shards.rows import row_texts

METHOD = "sum of the first 128 bits of SHA-256 of each row's JSON [id, texts, 0], modulo 2^128"


@dataclass
class Contents:
    rows: int = 0
    pairs: int = 0
    of_rows: Checksum = field(default_factory=Checksum)
    of_pairs: Checksum = field(default_factory=Checksum)

    def merge(self, other: Contents) -> None:
        """Add those of further rows."""
        self.rows += other.rows
        self.pairs += other.pairs
        self.of_rows.add_sum(other.of_rows.value)
        self.of_pairs.add_sum(other.of_pairs.value)

    def shown(self) -> dict[str, Any]:
        return {
            "rows": {
                "of": "rows as (id, texts), in any order",
                "count": self.rows,
                "value": self.of_rows.hex(),
            },
            "pairs": {
                "of": "pairs as (image_id, texts), in any order",
                "count": self.pairs,
                "value": self.of_pairs.hex(),
            },
            "method": METHOD,
        }


def of_sidecar(sidecar: Path) -> Contents | None:
    """Of the shard that a sidecar belongs to; None when `shard` did not write it. Raises InputError."""
    if SIDECAR_MARK not in sidecar_metadata(sidecar):
        return None
    table = read_sidecar(sidecar, ["status", "id", "image_id", "texts"]).to_pydict()
    good = [status == SUCCESS for status in table["status"]]
    contents = Contents(len(good), sum(good))
    contents.of_rows.add(table["id"], table["texts"])
    contents.of_pairs.add(
        [image_id for image_id, is_good in zip(table["image_id"], good, strict=True) if is_good],
        [texts for texts, is_good in zip(table["texts"], good, strict=True) if is_good],
    )
    return contents


def of_rows(inputs: Sequence[str]) -> Contents:
    """Of all rows of files or of stdin ("-"), as `filter` and `shard` see them. Raises what `records.read` does."""
    contents = Contents()
    with Identity() as identity:
        for batch in read(inputs):
            assigned = identity.assign(batch)
            contents.rows += len(batch)
            contents.of_rows.add(assigned.frame["id"].to_list(), row_texts(assigned))
            contents.of_pairs.add(assigned.frame["image_id"].to_list(), assigned.frame["text"].to_list())
    contents.pairs = contents.rows
    return contents

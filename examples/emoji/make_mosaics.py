"""Writes mosaics.jsonl: 1,000 mosaics of four pictures of val-artist, one of them named.

    python examples/emoji/make_mosaics.py

Every name is asked for about equally often (1,000 / 519), in a random cell; the four pictures are of four
families and have four names. The list is committed: the same seed gives the same bytes.
"""

import json
import random
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
COUNT, SEED, SPLIT = 1000, 0, "val-artist"


def mosaics() -> list[dict]:
    rows = (
        pl.read_parquet(HERE / "raw.parquet", columns=["id", "name", "family", "split"])
        .filter(pl.col("split") == SPLIT)
        .sort("id")
        .rows(named=True)
    )
    draw = random.Random(SEED)
    made = []
    named: list[dict] = []
    while len(made) < COUNT:
        if not named:
            named = draw.sample(rows, len(rows))
        target = named.pop()
        cells = [target]
        while len(cells) < 4:
            other = draw.choice(rows)
            if all(other["family"] != c["family"] and other["name"] != c["name"] for c in cells):
                cells.append(other)
        draw.shuffle(cells)
        made.append(
            {"images": [c["id"] for c in cells], "target": cells.index(target), "text": target["name"]}
        )
    return made


if __name__ == "__main__":
    lines = [json.dumps(mosaic, ensure_ascii=False) + "\n" for mosaic in mosaics()]
    (HERE / "mosaics.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} mosaics of {SPLIT}")

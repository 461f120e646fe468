"""Data sets in miniature: the files that their authors publish, with pictures of the emoji corpus under their names."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl

from vlcli.datasets.row import Row
from vlcli.datasets.table import Reading, open_dataset

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"


@lru_cache
def emoji() -> list[tuple[bytes, str]]:
    """Pictures of the corpus and their names."""
    table = pl.read_parquet(CORPUS, columns=["image", "name"]).head(24)
    return [(image["bytes"], name) for image, name in table.iter_rows()]


def pictures(folder: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(emoji()[i % 24][0])


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def json_lines(file: Path, rows: Sequence[dict]) -> Path:
    return write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def base64_table(file: Path, ids: Sequence[int], *, urlsafe: bool = True) -> Path:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    return write(file, "".join(f"{n}\t{encode(emoji()[i % 24][0]).decode()}\n" for i, n in enumerate(ids)))


def muge(folder: Path) -> None:
    """MUGE in its own form: 12 pictures; queries with several, with one, and two that are written alike."""
    ids = [1076345, 517602, *range(2000, 2010)]
    base64_table(folder / "MR_valid_imgs.tsv", ids)
    quoted = {"query_id": 8428, "query_text": "高级感托特包斜挎", "item_ids": [1076345, 517602]}
    others = [
        {"query_id": 8429, "query_text": "托特包", "item_ids": [517602]},
        {"query_id": 8430, "query_text": "红色连衣裙", "item_ids": [2000, 2001, 2002]},
        {"query_id": 8431, "query_text": "托特包", "item_ids": [2003]},
    ]
    json_lines(folder / "MR_valid_queries.jsonl", [quoted, *others])
    base64_table(folder / "MR_test_imgs.tsv", ids)
    blind = [{k: v for k, v in row.items() if k != "item_ids"} for row in (quoted, *others)]
    json_lines(folder / "MR_test_queries.jsonl", blind)


def read(name: str, *paths: Path | str, **how) -> tuple[list[Row], Reading]:
    """All rows, and what was counted."""
    reading = open_dataset(name, [str(path) for path in paths], **how)
    return list(reading.rows()), reading


def pairs(rows: Sequence[Row]) -> list[tuple[str | None, str | None]]:
    return [(row.image_id, row.text) for row in rows]

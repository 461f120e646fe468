"""A small corpus with all that `filter` has to number or count, and rules that do."""

from __future__ import annotations

import json
import random

import polars as pl


def corpus(tmp_path, rows=4000, bad=()):
    """Two JSONL files and a Parquet one: repeated rows, texts, queries and images, lists of texts, odd characters."""
    chance = random.Random(7)
    words = [
        *"狗猫鸟鱼树花山水",
        "大海 sea",
        'a "quote"',
        "back\\slash",
        "tab\there",
        "000.jpg",
        "王小明去看海",
    ]
    lines = []
    for i in range(rows):
        text = "".join(chance.choices(words, k=chance.randint(1, 3)))
        row = {
            "image": f"img/{chance.randint(0, rows // 2)}.jpg",
            "text": text if chance.random() < 0.8 else [text, chance.choice(words)],
            "query": chance.choice([None, "", "a", "b", f"q{i % 50}"]),
            "width": chance.randint(100, 900),
            "height": chance.randint(100, 900),
            "ctr": round(chance.random(), 2),
            "extra": {"n": i},
        }
        lines.append(json.dumps(row, ensure_ascii=False) if i not in bad else "{not json")
    third = len(lines) // 3
    for name, part in (("a", lines[:third]), ("b", lines[third : 2 * third])):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    columnar = [json.loads(line) for line in lines[2 * third :]]
    for row in columnar:
        row["text"] = [row["text"]] if isinstance(row["text"], str) else row["text"]
    frame = pl.DataFrame(columnar)
    frame.write_parquet(tmp_path / "c.parquet", row_group_size=200)
    return [str(tmp_path / "a" / "a.jsonl"), str(tmp_path / "b" / "b.jsonl"), str(tmp_path / "c.parquet")]


RULES = {
    "max-per-query": "90",
    "min-side": ">200",
    "max-words": "<9",
    "min-words": "1",
    "drop-meaningless": True,
    "max-text-freq": "10",
    "mask-names": True,
}
MORE = {
    "ctr-top-k": "80",
    "max-images-per-text": "12",
    "max-texts-per-image": "6",
    "ngram-vocab-size": "1500",
}

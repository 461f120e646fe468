"""Captions without a captioner, to measure one by: python examples/emoji/caption_controls.py DIR

Of DIR/beam.jsonl, DIR/embeddings/train and DIR/embeddings/val (images of the training and of the validation drawings)
it writes DIR/constant.jsonl, DIR/nearest.jsonl and DIR/shuffled.jsonl, and prints ten drawings with what was said of
them.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import polars as pl


def embedded(folder):
    """(n, d) vectors of length 1, and their captions and ids."""
    parts = sorted(
        (folder / "metadata").glob("*.parquet"), key=lambda file: int(file.stem.rpartition("_")[2])
    )
    vectors = [
        np.load(folder / "img_emb" / f"{file.stem.replace('metadata', 'img_emb')}.npy") for file in parts
    ]
    table = pl.concat([pl.read_parquet(file, columns=["caption", "id"]) for file in parts])
    return np.concatenate(vectors), table["caption"].to_list(), table["id"].to_list()


def main(out):
    rows = [orjson.loads(line) for line in (out / "beam.jsonl").read_bytes().splitlines()]
    train, names, _ = embedded(out / "embeddings" / "train")
    val, _, ids = embedded(out / "embeddings" / "val")
    assert ids == [row["id"] for row in rows]
    own = [row["caption_generated"] for row in rows]
    half = len(own) // 2
    said = {
        "constant": [Counter(names).most_common(1)[0][0]] * len(rows),
        "nearest": [names[i] for i in (val @ train.T).argmax(1)],
        "shuffled": own[half:] + own[:half],
    }
    for control, captions in said.items():
        lines = [
            orjson.dumps({**row, "caption_generated": caption}, option=orjson.OPT_APPEND_NEWLINE)
            for row, caption in zip(rows, captions, strict=True)
        ]
        (out / f"{control}.jsonl").write_bytes(b"".join(lines))
    for i in range(0, len(rows), max(1, len(rows) // 10))[:10]:
        print(f"{rows[i]['text']}\tcaptioner: {own[i]}\tnearest: {said['nearest'][i]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""COCO-CN's test set as it is stored: see tests/data/coco_cn/README.md."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "data" / "coco_cn" / "test.jsonl.gz"
SYSTEMS = ("aic-icc", "coco-cn", "coco-mt", "flickr8k-cn", "seqlearn")
NAMES = {
    "Bleu_1": "bleu1_words",
    "Bleu_2": "bleu2_words",
    "Bleu_3": "bleu3_words",
    "Bleu_4": "bleu4_words",
    "ROUGE_L": "rougeL_words",
    "CIDEr": "cider_words",
    "METEOR": "meteor_char",
}


@cache
def stored():
    """The scores of the set by system, the images, and their references without the three commas."""
    head, *rows = map(json.loads, gzip.decompress(FILE.read_bytes()).splitlines())
    assert tuple(head["metrics"]) == tuple(NAMES)
    references = [[text.replace(" , ", " ") for text in row["references"]] for row in rows]
    return head["overall"], rows, references

"""What tables of generated captions and pictures show, by the names of numbers in a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Line = Mapping[str, Any]

_CAPTIONS = re.compile(r"(bleu[1-4]|rougeL|cider|meteor)_(\w+)")
_SHOWN = {"rougeL": "ROUGE-L", "cider": "CIDEr-D", "meteor": "METEOR"}
PICTURES = {"kid": "KID × 1000", "fid": "FID", "clip_score": "CLIP score", "R@1": "R@1 of captions"}
LOWER = {"kid", "fid"}  # the less the better


def caption_metrics(line: Line) -> dict[str, str]:
    """name → heading of the caption scores of a line, in its order."""
    found = {}
    for name in line:
        if match := _CAPTIONS.fullmatch(name):
            metric, tokenizer = match.groups()
            found[name] = f"{_SHOWN.get(metric, f'BLEU-{metric[-1]}')} {tokenizer}"
    return found


def picture_metrics(line: Line) -> dict[str, str]:
    """The same of pictures."""
    return {name: shown for name, shown in PICTURES.items() if line["command"] == "score" and name in line}


def judged_by(line: Line) -> str:
    """In which net, of how many pictures, by which encoder: no distance stands without it."""
    said = []
    if net := line.get("features"):
        said.append(f"{net['net']} ({net['hash']}), {line['n']:,} of {line['n_real']:,} pictures")
    if encoder := line.get("encoder"):
        said.append(f"encoder {encoder}")
    return ", ".join(said)

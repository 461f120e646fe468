"""What is printed of scored captions, and a row for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from vlcli.evaluation.caption_files import CAPTION, Captioned
from vlcli.evaluation.caption_metrics.score import CaptionScores
from vlcli.evaluation.describe import language_of


def described(captioned: Captioned, *, split: str | None = None, lang: str | None = None) -> dict[str, Any]:
    """What the numbers are of: `checkpoint` is the hash of the captions themselves."""
    return {
        "checkpoint": captioned.captions_hash,
        "data": captioned.source,
        "split": split or captioned.split or f"sha256:{captioned.split_hash[:12]}",
        "split_hash": captioned.split_hash,
        "lang": lang or language_of([texts[0] for texts in captioned.references]),
        "similarity": "–",
    }


def result_of(
    head: dict[str, Any], captioned: Captioned, scores: CaptionScores, tokenizers: Sequence[str]
) -> dict[str, Any]:
    """The object of --json: numbers by name, ×100."""
    return {
        **head,
        "images": len(captioned.images),
        "references": sum(map(len, captioned.references)),
        "empty": scores.empty,
        "left_out": {"without_caption": captioned.uncaptioned, "without_reference": captioned.unknown},
        "tokenizers": list(tokenizers),
        **{name: round(value, 4) for name, value in scores.corpus.items()},
        "ci95": scores.ci95,
    }


def rows_of(captioned: Captioned, scores: CaptionScores) -> Iterator[bytes]:
    """A JSON line for each image: its caption, its references and its numbers."""
    for i, (image, caption, references) in enumerate(
        zip(captioned.images, captioned.captions, captioned.references, strict=True)
    ):
        numbers = {name: round(float(values[i]), 4) for name, values in scores.images.items()}
        row = {"image_id": image, CAPTION: caption, "references": references, **numbers}
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

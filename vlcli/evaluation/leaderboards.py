"""Predictions as leaderboards take them: MUGE's submission, and the two files of Chinese-CLIP's evaluation.

    muge              {"query_id": 8428, "query_text": "高级感托特包斜挎", "item_ids": [ten]}
    chinese-clip      {"text_id": 8428, "image_ids": [ten]}
    chinese-clip-tr   {"image_id": 1076345, "text_ids": [ten]}

Their evaluators want ids that are whole numbers, and exactly ten of them for every query. Queries with one text under
several ids have a line for each.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from vlcli.errors import InputError, UsageError

TEN = 10
Lines = Callable[
    [dict[str, Any]], Iterator[dict[str, Any]]
]  # a prediction of `Retrieval` → lines of the file


class Leaderboard:
    """Lines of one kind for the queries of `table`, whose frame has a column `text_id`.

    Raises UsageError where the rows have no such ids, InputError where there are fewer than ten candidates.
    """

    def __init__(self, kind: str, table: Any) -> None:
        self.kind = kind
        self.ids: dict[str, list[Any]] = {}  # text → its ids, in order of appearance
        column = table.frame["text_id"].to_list() if "text_id" in table.frame.columns else []
        if all(value is None for value in column):
            raise UsageError(
                f"--predictions-as {kind}: the rows have no text_id", remedy="--dataset muge, say, has them"
            )
        for row, (value, texts) in enumerate(zip(column, table.texts, strict=True)):
            if texts and value is None:
                raise InputError(f"row {table.ids[row]} has no text_id", file=str(table.source))
            for text in texts:
                known = self.ids.setdefault(unicodedata.normalize("NFC", text), [])
                if (number := _number(value, table.source)) not in known:
                    known.append(number)
        images = dict.fromkeys(image for image in table.image_ids if image is not None)
        pool = sum(map(len, self.ids.values())) if kind == "chinese-clip-tr" else len(images)
        if pool < TEN:
            what = "texts" if kind == "chinese-clip-tr" else "images"
            raise InputError(f"{kind} wants {TEN} of {pool} {what}", file=str(table.source))
        for image in images:
            _number(image, table.source)

    def lines(self, prediction: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines that a row of predictions becomes; none where its direction is the other one."""
        if (prediction["direction"] == "i2t") != (self.kind == "chinese-clip-tr"):
            return
        if self.kind == "chinese-clip-tr":
            texts = [number for text in prediction["texts"] for number in self.ids[text]]
            yield {"image_id": int(prediction["image_id"]), "text_ids": texts[:TEN]}
            return
        images = [int(image) for image in prediction["image_ids"]]
        for number in self.ids[prediction["text"]]:
            if self.kind == "muge":
                yield {"query_id": number, "query_text": prediction["text"], "item_ids": images}
            else:
                yield {"text_id": number, "image_ids": images}


def _number(value: Any, source: str) -> int:
    try:
        return int(value)
    except ValueError:
        cause = f"a leaderboard's ids are whole numbers: {value!r} is none"
        raise InputError(cause, file=str(source)) from None

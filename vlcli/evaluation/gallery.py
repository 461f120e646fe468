"""What there is to retrieve: the distinct images and texts of a table, and which belong together."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from vlcli.text.prompts import PromptSet


@dataclass(frozen=True)
class Gallery:
    """Distinct images (by `image_id`) and distinct texts (after NFC), in order of appearance. Of a row without an
    image the texts belong to none.

    `positives[i]` are the texts that stand beside image i in any row: an image may have several texts and
    a text several images. `image_rows[i]` is the first row that shows image i.
    """

    image_ids: list[str]
    image_rows: list[int]
    texts: list[str]
    positives: list[set[int]]

    @classmethod
    def of(cls, table: Any) -> Gallery:
        """From a PairTable, or anything with `image_ids` and `texts` row by row."""
        images: dict[str, int] = {}
        texts: dict[str, int] = {}
        rows: list[int] = []
        positives: list[set[int]] = []
        for row, (image, captions) in enumerate(zip(table.image_ids, table.texts, strict=True)):
            columns = [
                texts.setdefault(unicodedata.normalize("NFC", caption), len(texts)) for caption in captions
            ]
            if image is None:
                continue
            i = images.setdefault(image, len(images))
            if i == len(rows):
                rows.append(row)
                positives.append(set())
            positives[i].update(columns)
        return cls(list(images), rows, list(texts), positives)

    def prompted(self, prompts: PromptSet) -> list[str]:
        """The texts as the model reads them: in the one template of `prompts`."""
        assert len(prompts) == 1, "retrieval has one template"
        return [prompts.fill(text)[0] for text in self.texts]

"""The texts of a gallery for one picture, with their probabilities (AltCLIP App. A.4)."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from vlcli.errors import InputError
from vlcli.evaluation.embed import embed_images
from vlcli.evaluation.retrieval import rows_of, tile_pairs, tiles
from vlcli.evaluation.tasks import Retrieval


def text_odds(pool: Retrieval, picture: bytes, k: int) -> list[dict[str, Any]]:
    """The `k` likeliest texts of `pool`, best first: `percent` is the softmax over all its texts of image→text
    similarity times the model's scale, `right` whether a row of the table has the text and these very bytes as its
    picture; without such a row nobody knows, and there is no `right`. Raises InputError where there are no texts.
    """
    gallery = pool.gallery
    if not gallery.texts:
        raise InputError("no texts: there is nothing to choose from", file=pool.table.source)
    image = embed_images(pool.model, [picture], **pool.options)
    texts = pool.texts
    parts = [
        pool.similarity(image, texts.rows(columns)).i2t[0].numpy()
        for columns in tiles(rows_of(texts), tile_pairs(image, texts))
    ]
    scores = np.concatenate(parts).astype(np.float64)
    powers = np.exp(pool.model.scale().item() * (scores - scores.max()))
    percent = 100 * powers / powers.sum()
    own = _texts_of(pool.table, picture)
    rows = []
    for place, j in enumerate(np.argsort(-scores, kind="stable")[:k].tolist(), start=1):
        row = {"rank": place, "score": round(float(scores[j]), 6), "percent": round(float(percent[j]), 4)}
        row |= {"text": gallery.texts[j]} | ({"right": gallery.texts[j] in own} if own else {})
        rows.append(row)
    return rows


def _texts_of(table: Any, picture: bytes) -> set[str]:
    """The texts of the rows whose picture has these bytes."""
    found: set[str] = set()
    for row in range(len(table)):
        if table.image_ids[row] is not None and table.image_bytes(row) == picture:
            found |= {unicodedata.normalize("NFC", text) for text in table.texts[row]}
    return found

"""What shards and pair tables take from a row."""

from __future__ import annotations

from typing import Any

from vlcli.records.batch import Batch

ZERO_FIELDS = ("title", "content", "image_query")  # ZERO's three text fields, used where `text` is absent


def row_texts(batch: Batch) -> list[list[str]]:
    """The non-blank texts of each row: `text`, else ZERO's three fields in their order."""
    texts = [[t for t in texts or () if t and t.strip()] for texts in batch.frame["text"].to_list()]
    if all(texts):
        return texts
    fields = [batch.column(name).to_list() for name in ZERO_FIELDS]
    for i, found in enumerate(texts):
        if not found:
            for column in fields:
                values = [column[i]] if isinstance(column[i], str) else column[i] or ()
                found += [t for t in values if isinstance(t, str) and t.strip()]
    return texts


def place(batch: Batch, i: int) -> dict[str, Any]:
    """`file=` and `line=` or `row=` of row i, for an InputError."""
    number = batch.frame["line"][i]
    return {"file": batch.file, "line" if batch.text_lines else "row": number}

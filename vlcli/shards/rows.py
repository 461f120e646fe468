"""What shards and pair tables take from a row."""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
import polars as pl

from vlcli.errors import InputError, MissingImage
from vlcli.images.resolve import ImageReader
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.identity import Identity
from vlcli.records.references import Relocator, is_url, split_container

ZERO_FIELDS = ("title", "content", "image_query")  # ZERO's three text fields, used where `text` is absent

# Columns that shards write themselves; an input column of that name gives way.
FIXED_COLUMNS = (
    "key",
    "status",
    "error_message",
    "caption",
    "url",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
    "sha256",
    "id",
    "uid",
    "image_id",
    "texts",
    "text_candidates",
    "query",
)
_TAKEN = {*FIXED_COLUMNS, *COLUMNS, *BOOKKEEPING, "image_bytes"} - {"url"}
_CHUNK = 256  # rows whose image bytes are in memory at once
_HEX32 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Row:
    """One input row on its way into a shard. `data` is None where its bytes could not be had; `problem`
    says why.
    """

    number: int  # 0-based over the whole input
    file: str
    line: int | None
    text_lines: bool
    reference: str | None  # as it can be opened from here; never written into a shard
    id: str
    image_id: str
    texts: list[str]
    candidates: list[str]
    query: str | None
    url: str | None
    kept: dict[str, Any]  # the other columns by name, nulls left out
    data: bytes | None
    problem: str
    public_problem: str  # the same without any path: what a shard may say
    fingerprint: bytes  # sha256 of what the row says, wherever its files lie
    lineage: tuple[dict[str, Any], ...] = ()  # of the input it came from
    came: tuple[str | None, list[str] | None] = (None, None)  # image_id and text as the stage before had them

    def source(self) -> dict[str, Any]:
        """The row as it came, for `--rejects`; its image by an absolute reference."""
        image = None if self.reference is None else Relocator(None)(self.reference)
        known = {"id": self.id, "image": image, "text": self.texts, "text_candidates": self.candidates}
        return {name: value for name, value in known.items() if value} | self.kept

    @property
    def uid(self) -> str:
        """32 hex digits: the id when it is such a string, else the head of its sha256 (what DataComp
        reshards by).
        """
        return self.id if _HEX32.fullmatch(self.id) else hashlib.sha256(self.id.encode()).hexdigest()[:32]


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
    return {"file": batch.file, "line" if batch.text_lines else "row": batch.frame["line"][i]}


def plain(value: Any) -> Any:
    """A value as JSON can say it, the same whether it came from JSON or from a typed column."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if isinstance(value, int | float | str) or value is None:  # bool is an int
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    return str(value)


def rows_of(
    batches: Iterator[Batch],
    reader: ImageReader,
    *,
    first: int = 0,
    skip: Callable[[int], bool] = lambda number: False,
) -> Iterator[Row]:
    """The rows with their image bytes, a few hundred at a time; of rows that `skip` names, no bytes are read.

    `first` is the number of the first row in the whole input.

    The bytes are at hand here, so a row whose `image_id` is missing, or is no more than its reference, is
    given the sha256 of its bytes: paths do not enter shards. `id` is what the first stage of any pipe gives
    it. Damage in a container (a source that changed, a broken Parquet file) is raised; an image that is
    missing is the row's own problem.
    """
    number = first
    with Identity() as identity:
        for batch in batches:
            for start in range(0, len(batch), _CHUNK):
                chunk = batch.slice(start, _CHUNK)
                yield from _chunk_rows(chunk, identity.assign(chunk), reader, number, skip)
                number += len(chunk)


def _chunk_rows(
    given: Batch, batch: Batch, reader: ImageReader, first: int, skip: Callable[[int], bool]
) -> Iterator[Row]:
    frame = batch.frame
    names = ("id", "image", "image_bytes", "text_candidates", "query", "line")
    columns = {name: frame[name].to_list() for name in names}
    image_ids, texts = given.frame["image_id"].to_list(), row_texts(batch)
    came = list(zip(frame["image_id"].to_list(), frame["text"].to_list(), strict=True))
    others = batch.rest.to_dicts() if isinstance(batch.rest, pl.DataFrame) else batch.rest
    for i, other in enumerate(others):
        reference, data, image_id = columns["image"][i], columns["image_bytes"][i], image_ids[i]
        problem = public_problem = ""
        fingerprinted = data
        if skip(first + i):
            data = None
        elif data is None:
            try:
                data, problem, public_problem = _fetch(reference, reader)
            except InputError as error:
                raise InputError(str(error), **place(batch, i)) from error
        if image_id is None or _is_reference(image_id, reference):
            image_id = hashlib.sha256(data).hexdigest() if data is not None else ""
        url = other.get("url")
        row = Row(
            number=first + i,
            file=batch.file,
            line=columns["line"][i],
            text_lines=batch.text_lines,
            reference=reference,
            id=columns["id"][i],
            image_id=image_id,
            texts=texts[i],
            candidates=list(columns["text_candidates"][i] or ()),
            query=columns["query"][i],
            url=url if isinstance(url, str) and url.startswith(("http://", "https://")) else None,
            kept={
                name: said
                for name, value in sorted(other.items())
                if name not in _TAKEN and name != "url" and (said := plain(value)) is not None
            },
            data=data,
            problem=problem,
            public_problem=public_problem,
            fingerprint=b"",
            lineage=batch.lineage,
            came=came[i],
        )
        yield replace(row, fingerprint=_fingerprint(row, reference, fingerprinted))


def _is_reference(image_id: str, reference: str | None) -> bool:
    """Whether an image_id is only the row's reference, perhaps written relative to another place."""
    return reference is not None and os.path.basename(image_id) == os.path.basename(reference)


def _fetch(reference: str | None, reader: ImageReader) -> tuple[bytes | None, str, str]:
    """(bytes, problem, the problem without paths). A container that cannot be read concerns more than one
    row: raised.
    """
    if reference is None:
        return None, "no image", "no image"
    try:
        return reader.read(reference), "", ""
    except MissingImage as error:
        return None, str(error), "no such image in its container"
    except InputError as error:
        if is_url(reference):
            return None, str(error), "a URL, which is never fetched"
        if not reference.startswith("data:") and split_container(reference) is not None:
            raise
        cause = str(error).rpartition(": ")[2]
        return None, str(error), "cannot be read" if os.path.basename(reference) in cause else cause


def _fingerprint(row: Row, reference: str | None, data: bytes | None) -> bytes:
    image = (
        os.path.basename(reference) if reference is not None and not reference.startswith("data:") else None
    )
    if image is None:
        image = hashlib.sha256(data if data is not None else (reference or "").encode()).hexdigest()
    said = [image, row.id, row.texts, row.candidates, row.query, row.url, row.kept]
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()

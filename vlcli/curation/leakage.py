"""Rules that keep downstream data out: pairs, images or texts of evaluation files (ZERO App. A).

Exact: texts are equal after NFC and stripping, images by their bytes, their image_id or their URL. Near-duplicates need
vectors or perceptual hashes, and are no rule.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from vlcli.curation.fields import Fields
from vlcli.curation.rule import Rule
from vlcli.curation.survey import Survey
from vlcli.curation.text_frequency import PLAIN, plain
from vlcli.errors import InputError, UsageError
from vlcli.records.batch import Batch
from vlcli.records.reader import read
from vlcli.records.references import is_url
from vlcli.records.sources import sources

_KINDS = {"against": "pair", "against-images": "image", "against-texts": "text"}
_IS_SHA256 = re.compile("[0-9a-f]{64}").fullmatch  # the bytes of an image, as `image_id` names them


@dataclass(frozen=True)
class Downstream:
    """Files of pairs that training must not see: a path, a glob or a directory; several behind commas."""

    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.inputs)

    def digest(self) -> str:
        """Of the files' bytes, for lineage."""
        whole = hashlib.sha256()
        for source in sources(self.inputs):
            assert source.path is not None
            with open(source.path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()


def parse_downstream(value: object, option: str) -> Downstream:
    """`flickr.jsonl,coco/`; UsageError for what is not there, and for stdin."""
    inputs = tuple(part for part in str(value).split(",") if part)
    if not inputs or "-" in inputs:
        raise UsageError(f"{option} {value!r}: a file of pairs is needed")
    try:
        sources(inputs)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    return Downstream(inputs)


def against(name: str, files: Downstream) -> Rule:
    """`against`: drops a text whose image has it downstream too; `against-images`: a row whose image is one of
    theirs; `against-texts`: a text that is one of theirs."""
    kind = _KINDS[name]
    column = f"{kind}_is_downstream"
    return Rule(
        name,
        "corpus",
        (column,),
        ~pl.col(column),
        f"{kind} of {files}",
        judges="row" if kind == "image" else "text",
        survey=lambda: Leakage(kind, files),
        costly=True,
    )


class Leakage(Survey):
    """What the files hold, and whether a row or a text of the input is among it."""

    reads_input = False

    def __init__(self, kind: str, files: Downstream) -> None:
        from vlcli.images.resolve import ImageReader

        self._kind, self._files = kind, files
        self._texts: dict[str, set[str]] = {}  # text -> keys of its images
        self._images: set[str] = set()  # keys
        self._sizes: set[int] = set()  # of image files, in bytes: no other is worth hashing
        self._reader = ImageReader()

    def finish(self) -> None:
        for batch in read(self._files.inputs):
            keys = [self._keys(i) if self._kind != "text" else set() for i in _images(batch)]
            self._images.update(*keys)
            lines = Fields().lines(batch, np.ones(len(batch), np.bool_)).filter("is_text")
            for row, text in lines.select("row", plain()).iter_rows():
                self._texts.setdefault(text, set()).update(keys[row])

    def thaw(self, folder: Path) -> None:
        self.finish()  # the files say all there is to know

    def _keys(self, image: _Image) -> set[str]:
        keys = set(image.names)
        try:
            data = image.data if image.data is not None else self._reader.read(image.reference or "")
        except (InputError, OSError) as error:
            if keys:
                return keys
            raise InputError(
                f"an image cannot be compared: {error}", file=image.place, remedy="give it an image_id"
            ) from None
        self._sizes.add(len(data))
        return {*keys, hashlib.sha256(data).hexdigest()}

    def look_up(self, batch: Batch, texts: pl.DataFrame) -> pl.Series:
        if self._kind == "image":
            return pl.Series(
                [not self._images.isdisjoint(self._own(i)) for i in _images(batch)], dtype=pl.Boolean()
            )
        plains = texts.select(plain())[PLAIN].to_list()
        found = [
            bool(is_text) and text in self._texts
            for text, is_text in zip(plains, texts["is_text"], strict=True)
        ]
        if self._kind == "pair" and any(found):
            rows = texts["row"].to_list()
            wanted = sorted({row for row, hit in zip(rows, found, strict=True) if hit})
            own = dict(zip(wanted, map(self._own, _images(batch, wanted)), strict=True))
            found = [
                hit and not self._texts[text].isdisjoint(own[row])
                for hit, text, row in zip(found, plains, rows, strict=True)
            ]
        return pl.Series(found, dtype=pl.Boolean())

    def _own(self, image: _Image) -> set[str]:
        """The keys of an image of the input; its file is read only if one of theirs has as many bytes."""
        keys = set(image.names)
        if any(_IS_SHA256(key) for key in keys):
            return keys
        data, reference = image.data, image.reference
        try:
            if data is None and reference is not None and not is_url(reference):
                is_file = os.path.isfile(reference)
                if not is_file or os.path.getsize(reference) in self._sizes:
                    data = self._reader.read(reference)
        except (InputError, OSError):
            return keys  # nobody can train on it either
        if data is not None and len(data) in self._sizes:
            keys.add(hashlib.sha256(data).hexdigest())
        return keys

    def close(self) -> None:
        self._reader.close()


@dataclass(frozen=True)
class _Image:
    names: tuple[str, ...]  # image_id and URL
    reference: str | None
    data: bytes | None
    place: str


def _images(batch: Batch, rows: Iterable[int] | None = None) -> Iterator[_Image]:
    frame = batch.frame.select("image_id", "image", "image_bytes", "line")
    for row in range(len(batch)) if rows is None else rows:
        image_id, reference, data, line = frame.row(row)
        names = [name for name in (image_id, reference if reference and is_url(reference) else None) if name]
        place = f"{batch.file}:{line}" if batch.text_lines else f"{batch.file}#{line}"
        yield _Image(tuple(names), reference, data, place)

"""Pairs in, a directory of embeddings out: part by part, so that a run that stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlcli.errors import UsageError
from vlcli.evaluation.embedding_output import EmbeddingOutput, Part, RowsDigest
from vlcli.evaluation.vectors import Encoder
from vlcli.images.decode import decode
from vlcli.records.bad import BadRows
from vlcli.records.references import Relocator
from vlcli.shards.rows import Row

Rows = Callable[[Callable[[int], bool]], Iterable[Row]]  # given whose images are not needed → all rows
COLUMNS = ("image_path", "caption", "id", "image_id", "url")


@dataclass(frozen=True)
class Options:
    """What is embedded, and how it lies on the disk."""

    what: tuple[str, ...] = ("image", "text")
    per_file: int = 10_000  # input rows a part
    dtype: str = "float16"

    def __post_init__(self) -> None:
        unknown = [name for name in self.what if name not in ("image", "text")]
        if unknown or not self.what or len(set(self.what)) < len(self.what):
            raise UsageError(f"--what {','.join(self.what)!r} is none of image, text, image,text")


def embed_pairs(
    encoder: Encoder,
    rows: Rows,
    output: Path,
    options: Options,
    bad: BadRows,
    *,
    batch_size: int = 64,
    precision: str = "fp32",
    force: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
    on_part: Callable[[Part, bool], None] = lambda part, stood: None,
) -> dict[str, Any]:
    """Writes the vectors of all rows, and returns what embed.json says of them.

    A row of `rows` is one line of the output: its image, and the first of its texts. One whose image cannot be read
    or that has no text goes to `bad` and is left out. Parts that stand are kept when their rows are the same; raises
    UsageError where they are not, or where encoder or options differ.
    """
    missing = [what for what in options.what if what not in encoder.what]
    if missing:
        raise UsageError(f"--what {missing[0]}: an image tower alone has no vectors of texts")
    record = {
        "encoder": encoder.record(),
        "what": ",".join(options.what),
        "dtype": options.dtype,
        "precision": precision,
    }
    claim = EmbeddingOutput(output, {**record, "per-file": options.per_file}, force=force)
    work = _Work(encoder, options, bad, batch_size, Relocator(output), on_rows)
    parts: list[Part] = []
    begun = False

    def needs_no_image(number: int) -> bool:
        return "image" not in options.what or number // options.per_file in claim.standing

    try:
        numbered = rows(needs_no_image)
        for number, group in groupby(numbered, lambda row: row.number // options.per_file):
            if not begun:
                claim.begin()
                begun = True
            stood = claim.standing.get(number)
            if stood is not None:
                part = _compared(stood, group, options.per_file, output, bad)
                on_rows(part.rows)
            else:
                part, arrays, metadata = work.part(number, group)
                claim.commit(part, arrays, metadata)
            parts.append(part)
            on_part(part, stood is not None)
        if not begun:
            claim.begin()
        return claim.finish(parts, {**record, "dim": encoder.dim})
    finally:
        claim.close()


def _compared(stood: Part, rows: Iterator[Row], per_file: int, output: Path, bad: BadRows) -> Part:
    """The part as it stands, when the rows are those that it was made of."""
    digest, causes = RowsDigest(), dict(stood.bad)
    for row in rows:
        digest.add(row.fingerprint)
        if row.number in causes:
            _divert(bad, row, causes[row.number])
    if (digest.rows, digest.hex()) != (stood.rows, stood.input):
        first = stood.part * per_file
        raise UsageError(
            f"{output}: part {stood.part} was made of other rows than input rows {first} to {first + digest.rows - 1}",
            remedy="give the same input, or --force to start anew",
        )
    return stood


def _divert(bad: BadRows, row: Row, cause: str) -> None:
    bad.add(row.file, row.line or 0, cause, row.source(), text_lines=row.text_lines)


@dataclass
class _Work:
    encoder: Encoder
    options: Options
    bad: BadRows
    batch_size: int
    relocate: Relocator
    on_rows: Callable[[int], None]

    def part(
        self, number: int, rows: Iterator[Row]
    ) -> tuple[Part, dict[str, np.ndarray], dict[str, list[Any]]]:
        """The part's mark (without its files), vectors by what they are of, and metadata by column."""
        digest = RowsDigest()
        failed: list[tuple[int, str]] = []
        found: dict[str, list[np.ndarray]] = {what: [] for what in self.options.what}
        metadata: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for batch in self._batches(rows, digest, failed):
            if "image" in found:
                found["image"].append(self.encoder.images(torch.stack([pixels for _, pixels in batch])))
            if "text" in found:
                found["text"].append(self.encoder.texts([row.texts[0] for row, _ in batch]))
            for row, _ in batch:
                self._describe(row, metadata)
            self.on_rows(len(batch))
        shape = (0, self.encoder.dim)
        arrays = {
            what: np.concatenate([np.empty(shape, np.float32), *vectors]).astype(self.options.dtype)
            for what, vectors in found.items()
        }
        vectors = len(metadata["id"])
        return Part(number, digest.rows, vectors, digest.hex(), failed), arrays, metadata

    def _batches(
        self, rows: Iterator[Row], digest: RowsDigest, failed: list[tuple[int, str]]
    ) -> Iterator[list[tuple[Row, Any]]]:
        """The good rows with their pixels, `batch_size` at a time."""
        batch: list[tuple[Row, Any]] = []
        for row in rows:
            digest.add(row.fingerprint)
            try:
                pixels = self._pixels(row)
            except ValueError as error:
                failed.append((row.number, str(error)))
                _divert(self.bad, row, str(error))
                continue
            batch.append((row, pixels))
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _pixels(self, row: Row) -> Any:
        """(3, h, w), None where no images are asked for. Raises ValueError for a row that cannot be used."""
        if "text" in self.options.what and not row.texts:
            raise ValueError("no text")
        if "image" not in self.options.what:
            return None
        if row.data is None:
            raise ValueError(row.problem)
        return self.encoder.preprocess(decode(row.data))

    def _describe(self, row: Row, metadata: dict[str, list[Any]]) -> None:
        reference = row.reference
        if reference is not None:
            reference = None if reference.startswith("data:") else self.relocate(reference)
        caption = row.texts[0] if row.texts else ""
        values = (reference, caption, row.id, row.image_id or None, row.url)
        for name, value in zip(COLUMNS, values, strict=True):
            metadata[name].append(value)

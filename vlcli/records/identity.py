"""Who a row is, and which image it shows (assigned once, by the first stage that reads it)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import orjson
import polars as pl

from vlcli.records.batch import Batch
from vlcli.records.embedded import ParquetImages
from vlcli.records.occurrences import Occurrences


class Identity:
    """Fills `image_id` and `id` where the input gives none. One instance sees all batches of a run, in input
    order.

    image_id: sha256 (hex) of the bytes when they are inside the input (a Parquet image column, an Arrow
    stream), else the reference as the input gives it, behind its folder when the inputs come from several.
    id: the first 32 hex digits of sha256 over the JSON array `[image_id, texts, n]`, n = how many equal rows
    came before.
    """

    def __init__(self, *, memory: int = 256 << 20) -> None:
        self._seen = Occurrences(memory=memory)
        self._images: ParquetImages | None = None

    def assign(self, batch: Batch) -> Batch:
        """The batch with `id` filled, and `image_id` wherever a row has an image."""
        batch = self.assign_images(batch)
        if batch.frame["id"].null_count():
            batch = batch.with_columns(self._ids(batch))
        return batch

    def assign_images(self, batch: Batch) -> Batch:
        """The batch with `image_id` alone filled, for those who only tell images apart."""
        if batch.frame["image_id"].null_count():
            batch = batch.with_columns(self._image_ids(batch))
        return batch

    def _image_ids(self, batch: Batch) -> pl.Series:
        ids: list[str | None] = batch.frame["image_id"].to_list()
        references = batch.frame["image"].to_list()
        lines = batch.frame["line"].to_list()
        column = batch.frame["image_bytes"]
        pixels = column.to_list() if column.null_count() < len(column) else [None] * len(column)
        missing = [i for i, given in enumerate(ids) if given is None]
        prefix = batch.folder if not batch.folder or batch.folder.endswith("/") else batch.folder + "/"
        label = f"{batch.folder_label}/" if batch.folder_label else ""
        inside: list[int] = []
        for i in missing:
            data, reference = pixels[i], references[i]
            if data is not None:
                ids[i] = hashlib.sha256(data).hexdigest()
            elif reference is None:
                continue
            elif not batch.text_lines and reference == f"{batch.file}#{lines[i]}":
                inside.append(i)
            elif prefix and reference.startswith(prefix):
                ids[i] = label + reference[len(prefix) :]
            else:
                ids[i] = reference
        if inside:
            for i, digest in zip(
                inside, self._open(batch.file).sha256([lines[i] for i in inside]), strict=True
            ):
                ids[i] = digest
        return pl.Series("image_id", ids, pl.String())

    def _open(self, path: str) -> ParquetImages:
        if self._images is None or self._images.path != path:
            self.close_images()
            self._images = ParquetImages(path)
        return self._images

    def _ids(self, batch: Batch) -> pl.Series:
        ids: list[str | None] = batch.frame["id"].to_list()
        missing = [i for i, given in enumerate(ids) if given is None]
        image_ids = batch.frame["image_id"].to_list()
        texts = batch.frame["text"].to_list()
        contents = [orjson.dumps([image_ids[i], texts[i] or []]) for i in missing]
        # A collision of the 64-bit keys would only skip an ordinal: the identity is hashed from the content
        # itself.
        digests = b"".join(hashlib.blake2b(content, digest_size=8).digest() for content in contents)
        ordinals = self._seen.count(np.frombuffer(digests, np.dtype("<u8")).astype(np.uint64))
        for i, content, ordinal in zip(missing, contents, ordinals.tolist(), strict=True):
            ids[i] = hashlib.sha256(content[:-1] + b",%d]" % ordinal).hexdigest()[:32]
        return pl.Series("id", ids, pl.String())

    def close_images(self) -> None:
        if self._images is not None:
            self._images.close()
            self._images = None

    def close(self) -> None:
        """Give memory and files back."""
        self.close_images()
        self._seen.close()

    def __enter__(self) -> Identity:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

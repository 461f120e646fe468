"""Who a row is, and which image it shows (assigned once, by the first stage that reads it)."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlcli.records.batch import Batch
from vlcli.records.digest import json_pairs, key64, sha256_hex
from vlcli.records.embedded import ParquetImages
from vlcli.records.occurrences import Keys, Occurrences


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
        unnamed = self.ask(batch)
        return unnamed.batch.with_columns(unnamed.ids(self.answer(unnamed.keys)).ids)

    def ask(self, batch: Batch) -> Unnamed:
        """The first half of `assign`, for which batches need not come in order: it remembers nothing."""
        return Unnamed(self.assign_images(batch))

    def answer(self, keys: Keys) -> NDArray[np.int64]:
        """How many rows with each key came before. Batches must be asked for in input order."""
        return self._seen.count(keys)

    def reads_pixels(self, batch: Batch) -> bool:
        """Whether image ids are made of pixels, which takes reading all of them."""
        frame = batch.frame
        missing = frame["image_id"].is_null()
        return bool((missing & frame["image_bytes"].is_not_null()).any()) or bool(
            (missing & _may_be_inside(batch)).any()
        )

    def assign_images(self, batch: Batch) -> Batch:
        """The batch with `image_id` alone filled, for those who only tell images apart."""
        if batch.frame["image_id"].null_count():
            batch = batch.with_columns(self._image_ids(batch))
        return batch

    def _image_ids(self, batch: Batch) -> pl.Series:
        frame = batch.frame
        name = pl.col("image")
        prefix = batch.folder if not batch.folder or batch.folder.endswith("/") else batch.folder + "/"
        if prefix:  # as the input gives it, behind what tells its folder from the others'
            label = f"{batch.folder_label}/" if batch.folder_label else ""
            inner = label + name.str.slice(len(prefix))
            name = pl.when(name.str.starts_with(prefix)).then(inner).otherwise(name)
        ids = frame.select(pl.coalesce("image_id", name).alias("image_id")).to_series()
        missing = frame["image_id"].is_null()
        if (with_pixels := (missing & frame["image_bytes"].is_not_null()).arg_true()).len():
            pixels = frame["image_bytes"].gather(with_pixels)
            ids = ids.scatter(with_pixels, [hashlib.sha256(data).hexdigest() for data in pixels])
        elif (missing & _may_be_inside(batch)).any():
            inside = pl.format("{}#{}", pl.lit(batch.file), pl.col("line")) == pl.col("image")
            rows = (missing & frame.select(inside.fill_null(False)).to_series()).arg_true()
            if len(rows):
                lines = frame["line"].gather(rows).to_list()
                ids = ids.scatter(rows, pl.Series(self._open(batch.file).sha256(lines), dtype=pl.String()))
        return ids

    def _open(self, path: str) -> ParquetImages:
        if self._images is None or self._images.path != path:
            self.close_images()
            self._images = ParquetImages(path)
        return self._images

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


def _may_be_inside(batch: Batch) -> pl.Series:
    """Whether each row refers to a row of the file that it is from itself, whose bytes are its image."""
    if batch.text_lines:
        return pl.repeat(False, len(batch), dtype=pl.Boolean(), eager=True)
    return batch.frame["image"].str.starts_with(f"{batch.file}#").fill_null(False)


class Unnamed:
    """A batch whose rows without `id` wait to be told how many equal rows came before each: `keys` asks for that."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._rows = batch.frame["id"].is_null().arg_true()
        part = batch.frame.select("image_id", "text")
        part = part if len(self._rows) == len(batch) else part[self._rows]
        self._image_ids, self._texts = part["image_id"], part["text"].fill_null([])

    @property
    def keys(self) -> Keys:
        """Equal for rows with the same image and texts. A collision of these 64 bits would only skip an ordinal: the
        identity is hashed from the content itself."""
        counts = self._texts.list.len().to_numpy().astype(np.uint64)
        one = self._texts.list.first() if (counts == 1).all() else self._texts.list.join("\0")
        keys = key64(self._image_ids) * np.uint64(_ODD[0])
        keys ^= key64(one) * np.uint64(_ODD[1])
        keys += counts * np.uint64(_ODD[2])
        return keys

    def ids(self, ordinals: NDArray[np.int64], wanted: NDArray[np.bool_] | None = None) -> Ids:
        """`id` of every row, or of those that are wanted (rows,); `ordinals` answer `keys`."""
        ids, rows = self.batch.frame["id"], self._rows
        image_ids, texts = self._image_ids, self._texts
        if wanted is not None:
            at = rows.to_numpy()
            keep = wanted[at]
            kept = pl.Series(keep)
            ids, rows = ids.filter(pl.Series(wanted)), pl.Series((np.cumsum(wanted) - 1)[at[keep]])
            image_ids, texts, ordinals = image_ids.filter(kept), texts.filter(kept), ordinals[keep]
        if not len(rows):
            return Ids(ids, None)
        firsts = sha256_hex(json_pairs(image_ids, texts, end=",0]"), 32)
        found, counts = firsts, pl.Series(ordinals)
        if len(again := (counts > 0).arg_true()):
            contents = json_pairs(image_ids.gather(again), texts.gather(again), end=",")
            contents = contents + counts.gather(again).cast(pl.String()) + "]"
            found = found.clone().scatter(again, sha256_hex(contents, 32))
        if len(found) == len(ids):
            return Ids(found.alias("id"), firsts)
        return Ids(ids.clone().scatter(rows, found), None)


_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Ids(NamedTuple):
    ids: pl.Series
    firsts: (
        pl.Series | None
    )  # 32 hex digits of each row's digest as the first of its kind; None where ids were given

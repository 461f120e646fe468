"""Searches of vectors that lie on disk, as `vlcli embed` writes them: exact, by blocks, and no image is encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlcli.curation.embeddings import Embeddings
from vlcli.errors import InputError, MissingImage, UsageError
from vlcli.evaluation.embed import embed_images, embed_texts, similarity_of
from vlcli.evaluation.faiss_index import FaissIndex
from vlcli.evaluation.search import Block, Query, best_of, exact, nearest, query_vector
from vlcli.evaluation.vectors import ModelVectors
from vlcli.images.resolve import ImageReader
from vlcli.text.prompts import PromptSet

BLOCK = 16_384  # vectors that are in memory at once
COLUMNS = ("id", "image_id", "caption", "image_path", "url")


class VectorIndex:
    """The images of a directory of embeddings that `model` made; or of a faiss index in it, which finds most of the
    nearest without comparing all.

    Memory is that of a block of vectors, whatever the directory's size: files are mapped. Raises UsageError for the
    vectors of another checkpoint and for what is no such directory, InputError for files that are damaged.
    """

    def __init__(self, path: Path, model: Any) -> None:
        file, path = (path, path.parent) if path.is_file() else (None, path)
        self.path, self.model = path, model
        self.vectors = Embeddings(path, "image")
        own, made = ModelVectors(model).record(), self.vectors.encoder
        if made is None:
            raise UsageError(
                f"{path}: nothing says which checkpoint made the vectors",
                remedy="vlcli embed makes some that do",
            )
        if made != own:
            whose = made.get("checkpoint") or made.get("tower") or "another encoder"
            raise UsageError(
                f"{path}: vectors of {whose}, not of checkpoint {own['checkpoint']}",
                remedy="search with the run that embedded them, or vlcli embed anew",
            )
        if not len(self.vectors):
            raise InputError("no vectors", file=str(path))
        if self.vectors.dim != model.config.dim:
            raise InputError(
                f"vectors of {self.vectors.dim} dimensions, the model's have {model.config.dim}",
                file=str(path),
            )
        said = self.vectors.record.get("vectors")
        if said is not None and said != len(self.vectors):
            raise InputError(f"{len(self.vectors):,} vectors, embed.json says {said:,}", file=str(path))
        self.faiss = None if file is None else FaissIndex(file, self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def blocks(self, size: int = BLOCK) -> Iterator[Block]:
        for start in range(0, len(self), size):
            yield start, self.vectors.take(np.arange(start, min(start + size, len(self))))

    def search(
        self,
        query: Query,
        prompts: PromptSet,
        k: int,
        *,
        preselect: int | None = None,
        image_root: Path | None = None,
        **encoding: Any,
    ) -> list[dict[str, Any]]:
        """The `k` rows whose vectors are nearest to the query's, best first; a picture in several rows is found as
        often. With `preselect` the pictures of that many rows are read and encoded, and a text's exact similarity with
        them ranks; InputError where one cannot be read."""
        vector, count = query_vector(self.model, query, prompts, **encoding), preselect or k
        found = (
            nearest(self.blocks(), vector, count) if self.faiss is None else self.faiss.nearest(vector, count)
        )
        said = self.vectors.described([row for row, _ in found], COLUMNS)
        if preselect is not None:
            text = embed_texts(self.model, prompts.fill(query.words), **encoding)
            with ImageReader(image_root or self.path) as reader:  # where embed's paths start
                pictures = [self._picture(about, reader) for about in said]
            scores = exact(similarity_of(self.model), embed_images(self.model, pictures, **encoding), text)
            found = best_of(range(len(said)), scores, k)
            said = [said[n] for n, _ in found]
        rows = []
        for place, ((_, score), about) in enumerate(zip(found, said, strict=True), start=1):
            caption = about.pop("caption")
            known = {name: value for name, value in about.items() if value is not None}
            rows.append({"rank": place, "score": score, **known, "text": [caption] if caption else []})
        return rows

    def _picture(self, about: dict[str, Any], reader: ImageReader) -> bytes:
        name = about["image_path"]
        if not name:
            raise InputError(
                f"row {about['id']} has no image_path: its similarity cannot be computed",
                file=str(self.path),
                remedy="search without --preselect",
            )
        try:
            return reader.read(name)
        except MissingImage as error:
            raise InputError(
                f"{error}", file=str(self.path), remedy="--image-root says where pictures are"
            ) from None

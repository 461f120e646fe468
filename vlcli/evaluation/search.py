"""Searches: the images that fit a text, a picture, or a picture with texts added or taken away (ALIGN §7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlcli.errors import UsageError
from vlcli.evaluation.embed import embed_images, embed_texts
from vlcli.evaluation.ranking import top
from vlcli.evaluation.retrieval import rows_of, tiles
from vlcli.text.prompts import PromptSet

if TYPE_CHECKING:
    from vlcli.evaluation.tasks import Retrieval

Block = tuple[int, npt.NDArray[np.float32]]  # number of its first vector; (b, d) of length 1


@dataclass(frozen=True)
class Query:
    """image_scale · picture + text_scale · (text + plus) − text_scale · minus, each part of length 1.

    `text_scale` None is ALIGN's: 2 of what is added to a picture, otherwise 1. `name` is the picture's. Raises
    UsageError for a query that has nothing to add to or take from.
    """

    text: str | None = None
    picture: bytes | None = None
    name: str = ""
    plus: str | None = None
    minus: str | None = None
    text_scale: float | None = None
    image_scale: float = 1.0

    def __post_init__(self) -> None:
        for flag, value in (("--query", self.text), ("--plus", self.plus), ("--minus", self.minus)):
            if value is not None and not value.strip():
                raise UsageError(f"{flag} is empty")
        if self.text is None and self.picture is None:
            flag = "--plus" if self.plus is not None else "--minus"
            raise UsageError(
                f"{flag} changes a query, and there is none", remedy="give --query-image FILE or --query TEXT"
            )

    @property
    def is_text(self) -> bool:
        """A text and nothing else, which a model's own similarity takes."""
        return self.picture is None and self.plus is None and self.minus is None

    @property
    def texts(self) -> list[tuple[str, float]]:
        """Every text with its scale, a negative one where it is taken away."""
        added = self.text_scale or (1.0 if self.picture is None else 2.0)
        parts = [(text, added) for text in (self.text, self.plus) if text is not None]
        return parts + ([(self.minus, -(self.text_scale or 1.0))] if self.minus is not None else [])

    @property
    def words(self) -> str:
        """The texts as a sum: `狐狸`, `+ 2·雪`, `− 夜`."""
        if self.is_text:
            return self.text or ""
        first = self.text if self.picture is None else None
        shown: list[str] = []
        for text, scale in self.texts:
            factor = "" if abs(scale) == 1 else f"{abs(scale):g}·"
            sign = "" if text is first and not shown else "− " if scale < 0 else "+ "
            shown.append(f"{sign}{factor}{text}")
        return " ".join(shown)

    @property
    def title(self) -> str:
        return f"{self.name} {self.words}".strip()


def query_vector(model: Any, query: Query, prompts: PromptSet, **encoding: Any) -> npt.NDArray[np.float32]:
    """(d,) of length 1. Of a token-wise or reduced model every part is the mean of its tokens, brought to length 1
    (vectors.py); texts stand in the one template of `prompts`. Raises UsageError where the parts cancel out."""
    from vlcli.evaluation.vectors import image_vectors, text_vectors

    total = np.zeros(model.config.dim, np.float32)
    if query.picture is not None:
        total += (
            query.image_scale * image_vectors(embed_images(model, [query.picture], **encoding))[0].numpy()
        )
    if query.texts:
        filled = [prompts.fill(text)[0] for text, _ in query.texts]
        vectors = text_vectors(embed_texts(model, filled, **encoding), model.config).numpy()
        total += np.array([scale for _, scale in query.texts], np.float32) @ vectors
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise UsageError(f"the parts of the query cancel out: {query.title}")
    return (total / length).astype(np.float32)


def nearest(blocks: Iterable[Block], vector: npt.NDArray[np.float32], k: int) -> list[tuple[int, float]]:
    """Numbers and cosines of the `k` vectors nearest to `vector`, best first; among equals the earlier one is."""
    best, where = np.empty(0, np.float32), np.empty(0, np.int64)
    for start, block in blocks:
        best = np.concatenate([best, block @ vector])
        where = np.concatenate([where, np.arange(start, start + len(block))])
        order = np.argsort(-best, kind="stable")[:k]
        best, where = best[order], where[order]
    return [(int(row), round(float(score), 6)) for row, score in zip(where, best, strict=True)]


def blocks_of(images: Any) -> Iterator[Block]:
    """The vectors of encoded images."""
    from vlcli.evaluation.vectors import image_vectors

    for rows in tiles(rows_of(images), 1024):
        yield rows.start, image_vectors(images.rows(rows)).numpy()


def search(pool: Retrieval, query: Query, k: int, *, preselect: int | None = None) -> list[dict[str, Any]]:
    """The `k` images of `pool` that fit `query` best, best first: a text by the model's text→image similarity,
    everything else by the cosine of vectors. With `preselect` a text's similarity is computed of that many images
    alone, the nearest by vector."""
    if not query.is_text or preselect is not None:
        vector = query_vector(pool.model, query, pool.prompts, **pool.options)
        found = nearest(blocks_of(pool.images), vector, preselect or k)
        if preselect is not None:
            numbers = [i for i, _ in found]
            scores = exact(pool.similarity, pool.images.rows(numbers), pool.encode([query.words]))
            found = best_of(numbers, scores, k)
    else:
        best = next(top(pool.similarity, pool.images, pool.encode([query.words]), k=k, direction="t2i"))
        found = list(zip(best.candidates, best.scores, strict=True))
    return [{"rank": place, "score": score, **pool.row(i)} for place, (i, score) in enumerate(found, start=1)]


def exact(similarity: Any, images: Any, text: Any) -> list[float]:
    """The text→image similarity of one encoded text with every image."""
    return similarity(images, text).t2i[:, 0].detach().float().cpu().tolist()


def best_of(numbers: Sequence[int], scores: Sequence[float], k: int) -> list[tuple[int, float]]:
    """The `k` best of some images, best first; among equals the one that came first."""
    order = sorted(range(len(numbers)), key=lambda n: -scores[n])[:k]
    return [(numbers[n], round(scores[n], 6)) for n in order]

"""Galleries of retrieval: a query and what was found for it, line by line, as PNG, SVG, HTML or JSON.

A gallery is a plain list of (query, results), whatever made it: texts that found images, images that found texts, an
image with a text added or taken away (ALIGN §7), or the queries that went wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlcli.evaluation.confusions import worst
from vlcli.evaluation.search import Query
from vlcli.figures.canvas import FORMATS, render
from vlcli.figures.gallery_page import draw_gallery, gallery_html
from vlcli.figures.html import as_json

WORST, NEAREST = 20, 6  # queries of each direction, candidates of each


@dataclass(frozen=True)
class Item:
    """A picture (its name and sha256), or a text, or both; as a result with its score, and whether it is right."""

    image: str | None = None
    sha256: str | None = None
    text: str | None = None
    score: float | None = None
    right: bool | None = None

    def as_json(self) -> dict[str, Any]:
        names: dict[str, Any] = {"image": self.image, "image_sha256": self.sha256, "text": self.text}
        names |= {"score": self.score, "right": self.right}
        return {key: value for key, value in names.items() if value is not None}

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Item:
        """ValueError for what is none."""
        if not isinstance(data, dict) or not ("text" in data or {"image", "image_sha256"} <= set(data)):
            raise ValueError("neither a picture nor a text")
        text, score = data.get("text"), data.get("score")
        return cls(
            data.get("image"),
            data.get("image_sha256"),
            None if text is None else str(text),
            None if score is None else float(score),
            data.get("right"),
        )


@dataclass(frozen=True)
class Line:
    """A query and its results, best first. `rank` is that of its best right answer, `answer` that one."""

    query: Item
    results: list[Item]
    rank: int | None = None
    answer: Item | None = None

    def as_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"query": self.query.as_json()}
        if self.rank is not None:
            data["rank"] = self.rank
        if self.answer is not None:
            data["answer"] = self.answer.as_json()
        return data | {"results": [one.as_json() for one in self.results]}

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Line:
        """KeyError, TypeError or ValueError for what is none."""
        answer, rank = data.get("answer"), data.get("rank")
        return cls(
            Item.of_json(data["query"]),
            [Item.of_json(one) for one in data["results"]],
            None if rank is None else int(rank),
            None if answer is None else Item.of_json(answer),
        )

    @property
    def items(self) -> list[Item]:
        return [self.query, *([self.answer] if self.answer else []), *self.results]


@dataclass(frozen=True)
class Gallery:
    """Lines to draw; `pictures` are bytes by sha256, `head` names model and data."""

    title: str
    lines: list[Line]
    pictures: dict[str, bytes]
    head: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"gallery": self.title, **self.head, "lines": [line.as_json() for line in self.lines]}

    @classmethod
    def of_json(cls, data: dict[str, Any], pictures: dict[str, bytes]) -> Gallery:
        """KeyError, TypeError or ValueError for what is none."""
        head = {key: value for key, value in data.items() if key not in ("gallery", "lines")}
        return cls(str(data["gallery"]), [Line.of_json(one) for one in data["lines"]], pictures, head)

    def render(self, kinds: Sequence[str]) -> dict[str, bytes]:
        """The gallery as each of `kinds`, equal bytes for equal inputs. U+FFFD marks what has no glyph."""
        figure = draw_gallery(self) if set(kinds) & set(FORMATS) else None
        done = {}
        for kind in kinds:
            if kind == "json":
                done[kind] = as_json(self.as_json())
            elif kind == "html":
                done[kind] = gallery_html(self, as_json(self.as_json()))
            else:
                assert figure is not None
                done[kind] = render(figure, kind)
        return done


class Album:
    """Items of a table's pictures; what was made an item is kept for the gallery."""

    def __init__(self, table: Any) -> None:
        self.table, self.pictures = table, {}  # type: Any, dict[str, bytes]
        self._rows = {name: row for row, name in enumerate(table.ids)}

    def item(self, row: int, **about: Any) -> Item:
        """The picture of a row, by its id."""
        return self.stranger(self.table.ids[row], self.table.image_bytes(row), **about)

    def stranger(self, name: str, content: bytes, **about: Any) -> Item:
        """A picture that need not be of the table."""
        digest = hashlib.sha256(content).hexdigest()
        self.pictures[digest] = content
        return Item(name, digest, **about)

    def results(
        self, title: str, found: Iterable[tuple[Item, Sequence[dict[str, Any]]]], head: dict[str, Any]
    ) -> Gallery:
        """A gallery of searches: queries, each with rows as `Retrieval.search` gives them."""
        lines = [
            Line(
                query,
                [
                    self.item(self._rows[one["id"]], text=" / ".join(one["text"]) or None, score=one["score"])
                    for one in rows
                ],
            )
            for query, rows in found
        ]
        return Gallery(title, lines, self.pictures, head)


def search_gallery(retrieval: Any, query: Query, found: Sequence[dict[str, Any]]) -> Gallery:
    """What `search(retrieval, query, k)` gave."""
    album = Album(retrieval.table)
    asked = Item(text=query.words or None)
    if query.picture is not None:
        asked = album.stranger(query.name, query.picture, text=query.words or None)
    return album.results("Search", [(asked, found)], _head(retrieval))


def error_gallery(retrieval: Any) -> Gallery | None:
    """The queries of a `Retrieval` that are ranked worst, in both directions, with their nearest candidates; None where
    no known answer stands behind another.
    """
    gallery, album = retrieval.gallery, Album(retrieval.table)
    shows = gallery.positives

    def picture(i: int, **about: Any) -> Item:
        own = gallery.texts[min(shows[i])] if shows[i] else None
        return album.item(gallery.image_rows[i], text=own, **about)

    def text(j: int, **about: Any) -> Item:
        return Item(text=gallery.texts[j], **about)

    lines = []
    ways: list[tuple[Literal["i2t", "t2i"], Any, Any]] = [("t2i", text, picture), ("i2t", picture, text)]
    for direction, query, answer in ways:
        for one in worst(
            retrieval.similarity, retrieval.images, retrieval.texts, shows, retrieval.found,
            direction=direction, count=WORST, k=NEAREST,
        ):  # fmt: skip
            results = []
            for c, score in zip(one.candidates, one.scores, strict=True):
                right = c in shows[one.query] if direction == "i2t" else one.query in shows[c]
                results.append(answer(c, score=score, right=right))
            best = answer(one.positive, score=one.score, right=True)
            lines.append(Line(query(one.query), results, one.rank, best))
    if not lines:
        return None
    return Gallery("Retrieval errors", lines, album.pictures, _head(retrieval))


def _head(retrieval: Any) -> dict[str, Any]:
    return {
        "checkpoint": retrieval.model.checkpoint_hash,
        "similarity": retrieval.model.similarity_kind,
        "data": retrieval.table.source,
        "prompts": retrieval.prompts.name,
    }

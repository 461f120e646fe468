"""The evaluations as commands run them: a model and a table of pairs in, one result out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.class_metrics import Tally
from vlcli.evaluation.class_predictions import Predictions
from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import (
    Progress,
    decode_row,
    embed_images,
    embed_texts,
    image_batches,
    similarity_of,
)
from vlcli.evaluation.feature_cache import FeatureCache
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.leaderboards import Lines
from vlcli.evaluation.mosaics import Mosaic, pointing
from vlcli.evaluation.preselection import loss_of_recall, pooled, preselected
from vlcli.evaluation.ranking import Top, top
from vlcli.evaluation.rerank import Matcher, Reranked, RerankScore, refuse_no_ranking, rerank
from vlcli.evaluation.retrieval import Ranks, ranks, summary
from vlcli.evaluation.truth import truth_of
from vlcli.evaluation.zeroshot import Ensemble, classified
from vlcli.evaluation.zeroshot import summary as accuracy
from vlcli.records.atomic import atomic_file
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet

Announce = Callable[[str, int], Progress]  # (what, how many) → a function that is told of each batch


def silent(what: str, total: int) -> Progress:
    """No progress."""
    return lambda done: None


def require_one(prompts: PromptSet) -> None:
    """UsageError unless there is one template."""
    if len(prompts) != 1:
        raise UsageError(
            f"{prompts.name} has {len(prompts)} templates, retrieval takes one",
            remedy="--prompts none, or a file with one line",
        )


class Retrieval:
    """A gallery whose sides are encoded once, when first asked for: of metrics, predictions and searches."""

    def __init__(
        self,
        model: Any,
        table: Any,
        prompts: PromptSet,
        *,
        batch_size: int = 64,
        precision: str = "fp32",
        cache: FeatureCache | None = None,
        announce: Announce = silent,
        images: Any = None,
    ) -> None:
        """`images` are the features of the gallery's pictures, where another language has had them encoded."""
        require_one(prompts)
        self.model, self.table, self.prompts = model, table, prompts
        self.gallery = Gallery.of(table)
        self.similarity = similarity_of(model)
        self.options: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
        self.encoding: dict[str, Any] = {**self.options, "cache": cache}
        self.announce = announce
        self.counted: Ranks | None = None  # what the last `metrics` counted
        if not self.gallery.image_ids:
            raise InputError("no rows", file=table.source)
        if images is not None:
            self.images = images

    @cached_property
    def images(self) -> Any:
        """The features of the gallery's pictures."""
        rows = self.gallery.image_rows
        told = self.announce("images", len(rows))
        return embed_images(self.model, self.table, rows, progress=told, **self.encoding)

    @cached_property
    def texts(self) -> Any:
        """The features of the gallery's texts."""
        return self.encode(self.gallery.texts)

    @cached_property
    def found(self) -> Ranks:
        """The rank of every query's best positive, by the similarity."""
        return ranks(self.similarity, self.images, self.texts, self.gallery.positives)

    def encode(self, texts: Sequence[str]) -> Any:
        filled = [self.prompts.fill(text)[0] for text in texts]
        return embed_texts(self.model, filled, progress=self.announce("texts", len(filled)), **self.encoding)

    def metrics(
        self,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        split: str | None = None,
        lang: str | None = None,
        rerank_at: int | None = None,
        rerank_score: RerankScore = "match",
        directions: Sequence[str] = ("i2t", "t2i"),
        predictions: Callable[[dict[str, Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """The `retrieve` object of design §3. `predictions` is called with a row for every query. With `rerank_at` the
        cross encoders of an R2D2 rank that many of each query's best anew (rerank.py). Of a direction that is not among
        `directions` there are no numbers, and none at all where nobody says what shows what (a test set's queries) and
        predictions are asked for."""
        gallery = self.gallery
        if rerank_at is not None:
            refuse_no_ranking(self.model)
        head = describe(self.model, self.table, gallery.texts, split=split, lang=lang)
        if not gallery.texts:
            raise InputError("no texts: there is nothing to retrieve", file=self.table.source)
        found, again, said = self.found, None, {}
        if rerank_at is not None:
            again = self._rerank(rerank_at, rerank_score)
            found = again.ranks
            said = {"rerank": {"k": rerank_at, "score": rerank_score}}
        if predictions is not None:
            for row in self._predictions(found, again):
                predictions(row)
        found = Ranks(*(r if side in directions else np.zeros_like(r) for side, r in found._asdict().items()))
        self.counted = found
        if predictions is not None and not any(gallery.positives):
            counts = {"images": len(gallery.image_ids), "texts": len(gallery.texts)}
            numbers: dict[str, Any] = {**counts, "i2t": None, "t2i": None, "MR": None, "ci95": {}}
        else:
            numbers = summary(found, gallery.positives, bootstrap=bootstrap, seed=seed)
        return {**head, "prompts": self.prompts.name, **said, **numbers}

    def write_metrics(
        self, path: Path | None, *, force: bool = False, lines: Lines | None = None, **how: Any
    ) -> dict[str, Any]:
        """`metrics(**how)`, with a JSONL file of the ten best of every query when there is a `path`; `lines` makes of
        each what a leaderboard wants."""
        if path is None:
            return self.metrics(**how)
        with atomic_file(path, force=force) as file:

            def write(row: dict[str, Any]) -> None:
                for line in lines(row) if lines is not None else (row,):
                    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

            return self.metrics(predictions=write, **how)

    def _rerank(self, k: int, score: RerankScore) -> Reranked:
        gallery = self.gallery
        matcher = Matcher(
            self.model,
            self.table,
            gallery.image_rows,
            gallery.prompted(self.prompts),
            progress=self.announce,
            **self.options,
        )
        return rerank(
            matcher,
            self.similarity,
            self.images,
            self.texts,
            gallery.positives,
            self.found,
            k=k,
            score=score,
            scale=self.model.scale().item(),
        )

    def _predictions(self, found: Ranks, again: Reranked | None, k: int = 10) -> Iterator[dict[str, Any]]:
        """The best k of every query; of re-ranked ones no more than were."""
        images = self.gallery.image_ids

        def best(direction: Literal["i2t", "t2i"]) -> Iterator[Top]:
            if again is None:
                yield from top(self.similarity, self.images, self.texts, k=k, direction=direction)
                return
            for one in again.i2t if direction == "i2t" else again.t2i:
                yield Top(one.query, one.candidates[:k], one.scores[:k])

        for one in best("i2t"):
            yield {
                "direction": "i2t",
                "image_id": images[one.query],
                "texts": [self.gallery.texts[j] for j in one.candidates],
                "scores": one.scores,
                "rank": int(found.i2t[one.query]) or None,
            }
        for one in best("t2i"):
            yield {
                "direction": "t2i",
                "text": self.gallery.texts[one.query],
                "image_ids": [images[i] for i in one.candidates],
                "scores": one.scores,
                "rank": int(found.t2i[one.query]) or None,
            }

    def preselected(self, k: int) -> dict[str, Any]:
        """The recalls where vectors choose `k` candidates of every query (preselection.py), beside those of
        `metrics`, which has been called."""
        vectors = pooled(self.model, self.images, self.texts)
        assert self.counted is not None, "metrics come first"
        found = preselected(self.similarity, self.images, self.texts, vectors, self.gallery.positives, k=k)
        asked = zip(found, self.counted, strict=True)
        return loss_of_recall(self.counted, Ranks(*(np.where(e > 0, r, 0) for r, e in asked)), k)

    def row(self, i: int) -> dict[str, Any]:
        """What is said of image i where it is found."""
        row = self.gallery.image_rows[i]
        return {
            "id": self.table.ids[row],
            "image_id": self.gallery.image_ids[i],
            "text": self.table.texts[row],
        }

    def pointing(self, mosaics: Sequence[Mosaic], *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
        """The pointing test on mosaics whose ids are those of the table's rows."""
        rows = {name: row for row, name in enumerate(self.table.ids)}
        for mosaic in mosaics:
            for name in mosaic.images:
                if name not in rows:
                    raise InputError(f"the mosaics name {name!r}, which no row of the data has as id")
        return pointing(
            self.model,
            mosaics,
            lambda name: decode_row(self.table, rows[name]),
            bootstrap=bootstrap,
            seed=seed,
            precision=self.options["precision"],
            progress=self.announce("mosaics", len(mosaics)),
        )


def classify(
    model: Any,
    table: Any,
    prompts: PromptSet,
    *,
    column: str = "label",
    labels: LabelSet | None = None,
    metric: str = "top1",
    several: bool = False,
    ensemble: Ensemble = "similarity",
    bootstrap: int = 1000,
    seed: int = 0,
    split: str | None = None,
    lang: str | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    announce: Announce = silent,
    told: Callable[[Tally], Any] = lambda tally: None,
    predictions: Predictions | None = None,
) -> dict[str, Any]:
    """The `zeroshot` object of design §3: rows of `table` with their class in `column` of its frame. `told` is given
    the scores that the numbers are of; `predictions` writes them down.

    `left_out` counts rows of classes that `labels` leaves out. For errors see `truth_of`.
    """
    truth = truth_of(table, column, labels, several=several)
    labels = truth.names
    distinct = len(set(labels.names.values()))
    with nullcontext() if predictions is None else predictions(model, table, truth) as scored:
        found = classified(
            model,
            image_batches(
                model,
                table,
                truth.rows,
                batch_size=batch_size,
                precision=precision,
                cache=cache,
                progress=announce("images", len(truth)),
            ),
            truth.labels,
            labels,
            prompts,
            metric=metric,
            ensemble=ensemble,
            batch_size=batch_size,
            precision=precision,
            cache=cache,
            progress=announce("texts", distinct * len(prompts)),
            scored=scored,
        )
    told(found)
    result = accuracy(found, labels, ensemble, bootstrap=bootstrap, seed=seed)
    head = describe(model, table, list(labels.names.values()), split=split, lang=lang)
    return {**head, "labels": labels.name, "prompts": prompts.name, **result, "left_out": truth.left_out}

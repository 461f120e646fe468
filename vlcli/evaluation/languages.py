"""One model in several languages [X Tables 1, 2 and 6]: each language's numbers, and their average.

The pictures are encoded once for all languages, the texts language by language, so that no more than one
language's texts are in memory. What stands in `langs` is what a command for that language alone prints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import InputError
from vlcli.evaluation.class_metrics import Parts, mean_parts
from vlcli.evaluation.class_metrics import numbers as numbers_of
from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import embed_images, take
from vlcli.evaluation.feature_cache import FeatureCache
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.metrics import mean_recall
from vlcli.evaluation.names_by_language import Naming
from vlcli.evaluation.retrieval import mean_interval, rows_of, tiles
from vlcli.evaluation.tasks import Announce, Retrieval, require_one, silent
from vlcli.evaluation.truth import truth_of
from vlcli.evaluation.zeroshot import Ensemble, classified
from vlcli.evaluation.zeroshot import summary as accuracy
from vlcli.text.prompts import PromptSet


def classify_in(
    model: Any,
    table: Any,
    namings: Mapping[str, Naming],
    *,
    metric: str = "top1",
    several: bool = False,
    ensemble: Ensemble = "similarity",
    bootstrap: int = 1000,
    seed: int = 0,
    split: str | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    announce: Announce = silent,
) -> dict[str, Any]:
    """`classify` in each language, by `namings`; raises what it does, before a picture is encoded."""
    known = {
        lang: truth_of(table, naming.column, naming.labels, several=several)
        for lang, naming in namings.items()
    }
    options: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "cache": cache}
    images = embed_images(model, table, progress=announce("images", len(table)), **options)
    found: list[Parts] = []
    results = []
    texts = 0
    for lang, naming in namings.items():
        truth = known[lang]
        labels = truth.names
        count = len(set(labels.names.values())) * len(naming.prompts)
        texts += count
        test = classified(
            model,
            (images.rows(truth.rows[part]) for part in tiles(len(truth), batch_size)),
            truth.labels,
            labels,
            naming.prompts,
            ensemble=ensemble,
            metric=metric,
            progress=announce(f"texts, {lang}", count),
            **options,
        )
        found.append(test.parts())
        head = describe(model, table, [], split=split, lang=lang)
        numbers = accuracy(test, labels, ensemble, bootstrap=bootstrap, seed=seed)
        results.append(
            {
                **head,
                "labels": labels.name,
                "prompts": naming.prompts.name,
                **numbers,
                "left_out": truth.left_out,
            }
        )
    whole = mean_parts(found, [truth.places for truth in known.values()])
    average = {"metric": metric, **numbers_of(whole, len(table), bootstrap=bootstrap, seed=seed)}
    return _sweep(results, average, len(table), texts)


def retrieve_in(
    model: Any,
    tables: Mapping[str, Any],
    prompts: Mapping[str, PromptSet],
    *,
    predictions: Mapping[str, Path] | None = None,
    force: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    split: str | None = None,
    directions: Sequence[str] = ("i2t", "t2i"),
    batch_size: int = 64,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    announce: Announce = silent,
) -> dict[str, Any]:
    """`Retrieval.write_metrics` of each language's table (see `load_captions`). A picture that several tables show
    is encoded once, also where it lies in several files.
    """
    for prompt in prompts.values():
        require_one(prompt)
    galleries = {lang: Gallery.of(table) for lang, table in tables.items()}
    for table in tables.values():
        if not len(table):
            raise InputError("no rows", file=table.source)
    pictures = _Pictures.of(tables, galleries)
    options: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "cache": cache}
    features = embed_images(model, pictures, progress=announce("images", len(pictures)), **options)
    found, positives, results = [], [], []
    texts = 0
    for lang, table in tables.items():
        task = Retrieval(
            model,
            table,
            prompts[lang],
            images=_of(features, pictures.numbers[lang]),
            announce=_in(lang, announce),
            **options,
        )
        target = predictions[lang] if predictions else None
        how: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "split": split, "lang": lang}
        results.append(task.write_metrics(target, force=force, directions=directions, **how))
        assert task.counted is not None, "metrics count"
        found.append(task.counted)
        positives.append(task.gallery.positives)
        texts += len(task.gallery.texts)
    average: dict[str, Any] = {"i2t": None, "t2i": None, "MR": None, "ci95": {}}
    for side in ("i2t", "t2i"):
        if all(result[side] is not None for result in results):
            average[side] = {k: _mean([result[side][k] for result in results]) for k in results[0][side]}
    if average["i2t"] or average["t2i"]:
        average["MR"] = mean_recall(average["i2t"], average["t2i"])
        numbers = list(pictures.numbers.values())
        average["ci95"] = mean_interval(found, positives, numbers, count=bootstrap, seed=seed)
    return _sweep(results, average, len(pictures), texts)


def _in(lang: str, announce: Announce) -> Announce:
    return lambda what, total: announce(f"{what}, {lang}", total)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _sweep(results: list[dict[str, Any]], average: dict[str, Any], images: int, texts: int) -> dict[str, Any]:
    """The object of a sweep; `encoded` counts what went through the towers, and images of one command a language."""
    alone = sum(result["images" if "images" in result else "n"] for result in results)
    head = {key: results[0][key] for key in ("checkpoint", "similarity")}
    encoded = {"images": images, "images_one_by_one": alone, "texts": texts}
    return {**head, "langs": results, "average": average, "encoded": encoded}


@dataclass
class _Pictures:
    """The distinct pictures of several tables, and which of them each table's gallery shows."""

    places: list[tuple[Any, int]]  # (table, row) of each
    numbers: dict[str, list[int]]

    @classmethod
    def of(cls, tables: Mapping[str, Any], galleries: Mapping[str, Gallery]) -> _Pictures:
        sources = {table.source for table in tables.values()}
        known: dict[str, int] = {}
        places: list[tuple[Any, int]] = []
        numbers = {}
        for lang, gallery in galleries.items():
            table, mine = tables[lang], []
            for image, row in zip(gallery.image_ids, gallery.image_rows, strict=True):
                # Files of several folders may call different pictures alike: their bytes tell.
                key = image if len(sources) == 1 else hashlib.sha256(table.image_bytes(row)).hexdigest()
                number = known.setdefault(key, len(known))
                if number == len(places):
                    places.append((table, row))
                mine.append(number)
            numbers[lang] = mine
        return cls(places, numbers)

    def __len__(self) -> int:
        return len(self.places)

    def image_bytes(self, i: int) -> bytes:
        table, row = self.places[i]
        return bytes(table.image_bytes(row))

    @property
    def ids(self) -> list[str]:
        """For messages: the rows that the pictures are of."""
        return [table.ids[row] for table, row in self.places]


def _of(features: Any, numbers: Sequence[int]) -> Any:
    """The features of `numbers`, in that order; those of all are not copied."""
    if list(numbers) == list(range(rows_of(features))):
        return features
    return take(features, numbers)

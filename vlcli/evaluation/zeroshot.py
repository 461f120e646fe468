"""Zero-shot classification with ensembles of prompts, for global and token-wise similarity.

Global (Wukong §5.2, ALIGN §5.2): a class is the mean over templates of its L2-normalised text vectors,
normalised again; the score is the cosine. Token-wise (FILIP §3.1.2): tokens have no mean, so the score is
the mean over the templates of the image→text similarity, (1/C) Σ_c s^I(image, text of template c). With
`ensemble="probability"`, which is what Wukong's released evaluation does, each template's scores go
through a softmax over the classes (without a temperature), and the probabilities are averaged.

Texts are encoded once and images pass by once, a few at a time; neither all scores nor all images are
ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vlcli.errors import InputError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.embed import Progress, collect, embed_texts, similarity_of, to_cpu
from vlcli.evaluation.retrieval import rows_of, tile_side, tiles
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet

if TYPE_CHECKING:
    from vlcli.evaluation.feature_cache import FeatureCache
    from vlcli.models.dual import ImageTokens, TextTokens

Ensemble = Literal["similarity", "probability"]
TOP = (1, 5)
NUMBERS = ("top1", "top5", "mean_per_class")


class Classifier:
    """`names` in the templates of `prompts`, encoded once; `scores(images)` gives (b, len(names)) float64."""

    def __init__(
        self,
        model: Any,
        names: Sequence[str],
        prompts: PromptSet,
        *,
        ensemble: Ensemble = "similarity",
        batch_size: int = 256,
        precision: str = "fp32",
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.similarity = similarity_of(model)
        self.ensemble = ensemble
        # Equal names are one text: encoded once, and their scores are equal to the last bit.
        distinct = list(dict.fromkeys(names))
        place = {name: j for j, name in enumerate(distinct)}
        self.columns = torch.tensor([place[name] for name in names])
        self.classes = len(distinct)
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "precision": precision,
            "cache": cache,
            "progress": progress,
        }
        # Template by template: rows p·classes … (p+1)·classes hold all classes in template p.
        if model.similarity_kind == "global" and ensemble == "similarity":
            self.templates = 1
            self.texts: TextTokens = _mean_text(model, distinct, prompts, options)
        else:
            self.templates = len(prompts)
            filled = [template.replace("{}", name, 1) for template in prompts.templates for name in distinct]
            self.texts = embed_texts(model, filled, **options)

    def scores(self, images: ImageTokens) -> torch.Tensor:
        """(b, classes) float64 of a batch of image features; the argmax is the predicted class."""
        total = torch.zeros(rows_of(images), len(self.columns), dtype=torch.float64)
        for p in range(self.templates):
            score = self._template(images, p)[:, self.columns].double()
            total += score.softmax(1) if self.ensemble == "probability" else score
        return total / self.templates

    def _template(self, images: ImageTokens, p: int) -> torch.Tensor:
        """(b, distinct names) image→text similarity in template p."""
        first = p * self.classes
        step = max(1, tile_side(images, self.texts) ** 2 // rows_of(images))
        parts = []
        for columns in tiles(self.classes, step):
            texts = self.texts.rows(slice(first + columns.start, first + columns.stop))
            parts.append(self.similarity(images, texts).i2t)
        return torch.cat(parts, 1)


def _mean_text(model: Any, names: list[str], prompts: PromptSet, options: dict[str, Any]) -> TextTokens:
    """Pooled vectors averaged over the templates and normalised again, a few classes at a time."""
    step = max(1, 4096 // len(prompts))

    def batches() -> Iterator[TextTokens]:
        for part in tiles(len(names), step):
            filled = [text for name in names[part] for text in prompts.fill(name)]
            features = embed_texts(model, filled, **options)
            pooled = features.pooled
            assert pooled is not None, "a global model pools"
            mean = F.normalize(pooled.view(len(names[part]), len(prompts), -1).mean(1), dim=-1)
            # A global similarity reads `pooled` alone; one column of a mask keeps the batches of one shape.
            first = features.rows(slice(0, None, len(prompts)))
            yield first._replace(pooled=mean, mask=first.mask[:, :1], content_mask=first.content_mask[:, :1])

    return collect(batches(), len(names))


def class_ranks(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(b,) 1-based place of the true class; among equal scores the lower class stands first, as in argmax."""
    if not torch.isfinite(scores).all():
        raise InputError("the model's similarities are not finite", remedy="the checkpoint is damaged")
    true = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1])[None] < labels[:, None]
    return 1 + ((scores > true) | ((scores == true) & earlier)).sum(1)


def zeroshot(
    model: Any,
    images: Iterable[ImageTokens],
    labels: Sequence[int],
    label_set: LabelSet,
    prompts: PromptSet,
    *,
    ensemble: Ensemble = "similarity",
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 256,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and mean-per-class accuracy in percent, with bootstrap intervals over the images.

    `images` are batches of image features (see `embed.image_batches`), `labels[i]` the position of image
    i's class in `label_set`. `progress` counts encoded texts. `duplicate_names` lists names that stand
    for several classes: no score can tell these apart, which caps top-1 below 100.
    """
    found = classified(
        model,
        images,
        labels,
        label_set,
        prompts,
        ensemble=ensemble,
        batch_size=batch_size,
        precision=precision,
        cache=cache,
        progress=progress,
    )
    return summary(found, label_set, ensemble, bootstrap=bootstrap, seed=seed)


def summary(
    found: Classified, label_set: LabelSet, ensemble: Ensemble, *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What `zeroshot` returns, from the places of the true classes."""
    return {
        "n": len(found.place),
        "classes": len(label_set),
        **accuracies(*found, bootstrap=bootstrap, seed=seed),
        "ensemble": ensemble,
        "duplicate_names": sorted(label_set.duplicates),
    }


class Classified(NamedTuple):
    """The place of each image's true class among all, from 1, and which class that is."""

    place: npt.NDArray[np.int64]  # (n,)
    labels: npt.NDArray[np.int64]  # (n,)


def classified(
    model: Any,
    images: Iterable[ImageTokens],
    labels: Sequence[int],
    label_set: LabelSet,
    prompts: PromptSet,
    *,
    ensemble: Ensemble = "similarity",
    batch_size: int = 256,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Classified:
    """What `zeroshot` counts."""
    classifier = Classifier(
        model,
        list(label_set.names.values()),
        prompts,
        ensemble=ensemble,
        batch_size=batch_size,
        precision=precision,
        cache=cache,
        progress=progress,
    )
    truth = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    places, done = [], 0
    for batch in images:
        batch = to_cpu(batch)
        places.append(class_ranks(classifier.scores(batch), truth[done : done + rows_of(batch)]))
        done += rows_of(batch)
    if not done:
        raise InputError("nothing to classify: the data has no rows")
    assert done == len(truth), f"{done} images, {len(truth)} labels"
    return Classified(torch.cat(places).numpy(), truth.numpy())


def accuracies(
    place: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, bootstrap: int, seed: int
) -> dict[str, Any]:
    """`top1`, `top5`, `mean_per_class` and their `ci95` from the place of each image's true class."""
    return mean_accuracies([Classified(place, labels)], bootstrap=bootstrap, seed=seed)


def mean_accuracies(tests: Sequence[Classified], *, bootstrap: int, seed: int) -> dict[str, Any]:
    """The same, as means over several tests of the same images (one a language). An image is drawn for all of them
    at once: what they say of it is not independent.
    """
    statistic = accuracy_statistic(tests)
    n = len(tests[0].place)
    whole = [round(float(value), 4) for value in statistic(np.ones(n))]
    result: dict[str, Any] = dict(zip(NUMBERS, whole, strict=True))
    if bootstrap < 1 or n < 2:
        return {**result, "ci95": {}}
    bounds = interval(statistic, n, count=bootstrap, seed=seed)
    return {**result, "ci95": dict(zip(NUMBERS, bounds, strict=True))}


def accuracy_statistic(
    tests: Sequence[Classified],
) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """The NUMBERS in percent, as means over the tests, when each image counts with its weight (n,)."""
    statistics = [_accuracies(test) for test in tests]
    return lambda weights: 100 * np.mean([statistic(weights) for statistic in statistics], axis=0)


def _accuracies(test: Classified) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """The NUMBERS as shares, when each image counts with its weight; a class that weighs nothing is not counted."""
    hits = np.stack([test.place <= k for k in TOP]).astype(np.float64)  # (2, n)
    present = np.unique(test.labels, return_inverse=True)[1]

    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        count = np.bincount(present, weights=weights)
        right = np.bincount(present, weights=weights * hits[0])
        drawn = count > 0
        return np.append(hits @ weights / weights.sum(), (right[drawn] / count[drawn]).mean())

    return statistic

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
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from vlcli.errors import InputError
from vlcli.evaluation.class_metrics import Tally, numbers, probabilities
from vlcli.evaluation.embed import Progress, collect, embed_texts, image_to_text_of, to_cpu
from vlcli.evaluation.retrieval import rows_of, tile_pairs, tiles
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet

if TYPE_CHECKING:
    from vlcli.evaluation.feature_cache import FeatureCache
    from vlcli.models.dual import ImageTokens, TextTokens

Ensemble = Literal["similarity", "probability"]
TEXTS = 2048  # encoded at a time where classes are averaged; the tower takes them a few tokens at a time


class Classifier:
    """`names` in the templates of `prompts`, encoded once; `scores(images)` gives (b, len(names))."""

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
        self.image_to_text = image_to_text_of(model)
        self.ensemble = ensemble
        # Equal names are one text: encoded once, and their scores are equal to the last bit.
        distinct = list(dict.fromkeys(names))
        place = {name: j for j, name in enumerate(distinct)}
        # Of each name the place among the distinct ones; None where each has its own.
        self.columns = None if len(distinct) == len(names) else torch.tensor([place[name] for name in names])
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
        """(b, classes) of a batch of image features, float64 where it is a mean; the argmax is the predicted class."""
        if self.templates == 1 and self.ensemble == "similarity":
            total = self._template(images, 0)
        else:
            total = torch.zeros(rows_of(images), self.classes, dtype=torch.float64)
            for p in range(self.templates):
                score = self._template(images, p).double()
                total += self._probabilities(score) if self.ensemble == "probability" else score
            total /= self.templates
        return total if self.columns is None else total.gather(1, self.columns.expand(len(total), -1))

    def _probabilities(self, score: torch.Tensor) -> torch.Tensor:
        """Over the classes, of which several may have one name."""
        if self.columns is None:
            return score.softmax(1)
        shares = torch.bincount(self.columns, minlength=self.classes)
        return (score + shares.log()).softmax(1) / shares

    def _template(self, images: ImageTokens, p: int) -> torch.Tensor:
        """(b, distinct names) image→text similarity in template p."""
        first = p * self.classes
        step = max(1, tile_pairs(images, self.texts) // rows_of(images))
        parts = []
        for columns in tiles(self.classes, step):
            texts = self.texts.rows(slice(first + columns.start, first + columns.stop))
            parts.append(self.image_to_text(images, texts))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _mean_text(model: Any, names: list[str], prompts: PromptSet, options: dict[str, Any]) -> TextTokens:
    """Pooled vectors averaged over the templates and normalised again, a few classes at a time."""
    step = max(1, TEXTS // len(prompts))

    def batches() -> Iterator[TextTokens]:
        for part in tiles(len(names), step):
            filled = [text for name in names[part] for text in prompts.fill(name)]
            features = embed_texts(model, filled, **options | {"batch_size": len(filled)})
            pooled = features.pooled
            assert pooled is not None, "a global model pools"
            mean = F.normalize(pooled.view(len(names[part]), len(prompts), -1).mean(1), dim=-1)
            # A global similarity reads `pooled` alone; one column of a mask keeps the batches of one shape.
            first = features.rows(slice(0, None, len(prompts)))
            yield first._replace(pooled=mean, mask=first.mask[:, :1], content_mask=first.content_mask[:, :1])

    return collect(batches(), len(names))


def zeroshot(
    model: Any,
    images: Iterable[ImageTokens],
    labels: Sequence[int] | torch.Tensor,
    label_set: LabelSet,
    prompts: PromptSet,
    *,
    ensemble: Ensemble = "similarity",
    metric: str = "top1",
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 256,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and mean-per-class accuracy in percent, and `metric` where it is another number (class_metrics.py),
    with bootstrap intervals over the images.

    `images` are batches of image features (see `embed.image_batches`), `labels[i]` the position of image i's class in
    `label_set` (or (n, classes) int8, of images of several: see `Truth`). `progress` counts encoded texts.
    `duplicate_names` lists names that stand for several classes: no score can tell these apart, which caps top-1 below
    100.
    """
    found = classified(
        model,
        images,
        labels,
        label_set,
        prompts,
        ensemble=ensemble,
        metric=metric,
        batch_size=batch_size,
        precision=precision,
        cache=cache,
        progress=progress,
    )
    return summary(found, label_set, ensemble, bootstrap=bootstrap, seed=seed)


def summary(
    found: Tally, label_set: LabelSet, ensemble: Ensemble, *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What `zeroshot` returns, from the scores."""
    return {
        "n": len(found),
        "classes": len(label_set),
        "metric": found.metric,
        **numbers(found.parts(), len(found), bootstrap=bootstrap, seed=seed),
        "ensemble": ensemble,
        "duplicate_names": sorted(label_set.duplicates),
    }


def classified(
    model: Any,
    images: Iterable[ImageTokens],
    labels: Sequence[int] | torch.Tensor,
    label_set: LabelSet,
    prompts: PromptSet,
    *,
    ensemble: Ensemble = "similarity",
    metric: str = "top1",
    batch_size: int = 256,
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
    scored: Callable[[torch.Tensor], None] | None = None,
) -> Tally:
    """What `zeroshot` counts. `scored` is given the scores of each batch of images."""
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
    truth = torch.as_tensor(labels)
    tally, done = Tally(len(label_set), metric), 0
    for batch in images:
        batch = to_cpu(batch)
        scores = classifier.scores(batch)
        if metric == "map11" and ensemble == "similarity":
            scores = probabilities(scores)
        if scored is not None:
            scored(scores)
        tally.add(scores, truth[done : done + len(scores)])
        done += len(scores)
    if not done:
        raise InputError("nothing to classify: the data has no rows")
    assert done == len(truth), f"{done} images, {len(truth)} labels"
    return tally

"""The best K of the cosine, ranked anew by the cross encoders (R2D2 App. C).

    1. all candidates by cosine;  2. the first K by the mean of both match probabilities;  3. the others stay behind
    them, in the order of the cosine.

The ranking is trained on negatives that the cosines choose (R2D2 §3.2), which leaves it little to learn of what these
know already: its odds are those that remain once the cosines are known. The posterior of both,

    log p(text | image) = cosine / τ + log(q / (1 − q)) + const,    q the match probability,

exact where negatives are drawn by the softmax of cosines, throws nothing away of what stage 1 knew. The paper's score
is q alone, the released code's q + cosine.

What is computed of one text or one image alone is computed once; pairs that both directions ask for are too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.embed import Progress, collect, decode_row, inference, to_cpu
from vlcli.evaluation.ranking import Top, top
from vlcli.evaluation.retrieval import TIE, Ranks

if TYPE_CHECKING:
    from vlcli.evaluation.retrieval import SimilarityFunction

# K of the data sets of R2D2 App. C.
PRESETS = {
    "flickr30k-cn": 128,
    "coco-cn": 256,
    "aic-icc": 32,
    "muge": 64,
    "icr": 64,
    "iqr": 64,
    "flickr30k-cna": 128,
}
RerankScore = Literal["match", "match+similarity", "posterior"]
PAIRS = 256  # of one pass through the cross encoders


def depth(said: str) -> int:
    """K of `--rerank`: a number, or the name of a data set that the paper has one for."""
    if said.isdecimal() and int(said) > 0:
        return int(said)
    if said.lower() in PRESETS:
        return PRESETS[said.lower()]
    raise UsageError(f"--rerank {said!r} is neither a number above 0 nor one of {', '.join(PRESETS)}")


class ImageStates(NamedTuple):
    """(n, 1 + n1, c): what the cross encoders read of every picture."""

    states: torch.Tensor


class Matcher:
    """`matcher(images, texts)` → log(q / (1 − q)) of the pairs (images[p], texts[p]), float64; q is the mean of
    both match probabilities.

    `pictures` are rows of `table`, `texts` strings; both are encoded when the matcher is made.
    """

    def __init__(
        self,
        model: Any,
        table: Any,
        pictures: Sequence[int],
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        precision: str = "fp32",
        progress: Callable[[str, int], Progress] | None = None,
    ) -> None:
        from vlcli.models.r2d2 import TextStates

        refuse_no_ranking(model)
        self.model, self.precision = model, precision
        told = progress or (lambda what, total: lambda done: None)
        self.told = told
        ids, mask = model.tokenize(list(texts))

        def of_texts() -> Iterator[Any]:
            done = told("states of texts", len(ids))
            for start in range(0, len(ids), batch_size):
                part = slice(start, start + batch_size)
                with torch.no_grad(), inference(model, precision):
                    hidden = model.text_states(ids[part].to(model.device), mask[part].to(model.device))
                yield to_cpu(TextStates(hidden, mask[part]))
                done(len(ids[part]))

        def of_pictures() -> Iterator[ImageStates]:
            from vlcli.models.r2d2 import image_states

            done = told("states of images", len(pictures))
            for start in range(0, len(pictures), batch_size):
                part = pictures[start : start + batch_size]
                pixels = torch.stack([model.preprocess(decode_row(table, row)) for row in part])
                with torch.no_grad(), inference(model, precision):
                    states = image_states(model.image_features(pixels.to(model.device)))
                yield to_cpu(ImageStates(states))
                done(len(part))

        self.texts = collect(of_texts(), len(texts))
        self.images = collect(of_pictures(), len(pictures)).states

    def __call__(
        self, images: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        scores = np.empty(len(images))
        done = self.told("pairs", len(images))
        for start in range(0, len(images), PAIRS):
            part = slice(start, start + PAIRS)
            scores[part] = self._pass(images[part], texts[part])
            done(len(images[part]))
        if not np.isfinite(scores).all():
            raise InputError("the model's match logits are not finite", remedy="the checkpoint is damaged")
        return scores

    def _pass(self, images: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        from vlcli.models.r2d2 import Pairs, TextStates

        device = self.model.device
        distinct_images, i = np.unique(images, return_inverse=True)
        distinct_texts, j = np.unique(texts, return_inverse=True)
        mask = self.texts.mask[torch.from_numpy(distinct_texts)]
        length = max(1, int(mask.sum(1).max()))
        hidden = self.texts.hidden[torch.from_numpy(distinct_texts), :length]
        pairs = Pairs(torch.from_numpy(j).to(device), torch.from_numpy(i).to(device))
        with torch.no_grad(), inference(self.model, self.precision):
            ranked = self.model.ranking(
                TextStates(hidden.to(device), mask[:, :length].to(device)),
                self.images[torch.from_numpy(distinct_images)].to(device),
                pairs,
            )
        return ranked.log_odds.cpu().numpy()


def probability(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The match probabilities of what a `Matcher` gives."""
    return np.exp(-np.logaddexp(0.0, -log_odds))


def refuse_no_ranking(model: Any) -> None:
    """UsageError for a checkpoint that is no R2D2."""
    if getattr(model, "ranking", None) is None:
        raise UsageError("the checkpoint is a dual encoder: there are no cross encoders that rank")


@dataclass
class Reranked:
    """Ranks of the best positives after re-ranking, and what of each query was ranked anew, best first."""

    ranks: Ranks
    i2t: list[Top]
    t2i: list[Top]


def rerank(
    matcher: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    similarity: SimilarityFunction,
    images: Any,
    texts: Any,
    positives: Sequence[AbstractSet[int]],
    found: Ranks,
    *,
    k: int,
    score: RerankScore = "match",
    scale: float = 1.0,
) -> Reranked:
    """`found` are the ranks by cosine. A K above the number of candidates takes them all. `scale` is 1/τ, of the
    posterior.

    Ties are pessimistic as those of the cosine are (retrieval.py). A query none of whose positives is among its first
    K keeps its rank: all K stand before it, whatever their order.
    """
    first = {side: list(top(similarity, images, texts, k=k, direction=side)) for side in ("i2t", "t2i")}
    asked = {(one.query, j) for one in first["i2t"] for j in one.candidates}
    asked |= {(i, one.query) for one in first["t2i"] for i in one.candidates}
    pairs = np.array(sorted(asked), dtype=np.int64).reshape(-1, 2)
    said = matcher(pairs[:, 0], pairs[:, 1])
    said = said if score == "posterior" else probability(said)
    of_cosine = {"match": 0.0, "match+similarity": 1.0, "posterior": scale}[score]
    score_of = {(int(i), int(j)): float(s) for (i, j), s in zip(pairs, said, strict=True)}

    shown: list[set[int]] = [set() for _ in range(len(found.t2i))]
    for i, columns in enumerate(positives):
        for j in columns:
            shown[j].add(i)
    after: dict[str, Any] = {}
    tops: dict[str, Any] = {}
    for side, own, right in (("i2t", found.i2t, positives), ("t2i", found.t2i, shown)):
        ranks = own.copy()
        tops[side] = []
        for one in first[side]:
            pair = [(one.query, c) if side == "i2t" else (c, one.query) for c in one.candidates]
            values = [score_of[p] + of_cosine * cosine for p, cosine in zip(pair, one.scores, strict=True)]
            order = sorted(range(len(values)), key=lambda n: -values[n])
            tops[side].append(
                Top(one.query, [one.candidates[n] for n in order], [round(values[n], 6) for n in order])
            )
            good = [v for c, v in zip(one.candidates, values, strict=True) if c in right[one.query]]
            if good:
                bar = max(good) - TIE
                ahead = sum(
                    v >= bar and c not in right[one.query]
                    for c, v in zip(one.candidates, values, strict=True)
                )
                ranks[one.query] = 1 + ahead
        after[side] = ranks
    return Reranked(Ranks(after["i2t"], after["t2i"]), tops["i2t"], tops["t2i"])

"""SimLex-999: do words that people find similar lie near each other? [A App. B]

ALIGN takes the `[CLS]` state of a word's pieces before the projection, the cosine of two words, and its Spearman
correlation with what people said, on nine subsets: all, adjectives, nouns, verbs, four quartiles of concreteness, and
the hard ones, 333 pairs that are associated. After the projection it is what the model itself compares: of a token-wise
model the late interaction of two words, the mean of both directions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.correlation import spearman
from vlcli.evaluation.embed import embed_texts, inference
from vlcli.text.prompts import read_lines

COLUMNS = ("word1", "word2", "SimLex999")
SUBSETS = ("all", "adjectives", "nouns", "verbs", "conc-q1", "conc-q2", "conc-q3", "conc-q4", "hard")
_OF_SPEECH = {"adjectives": "A", "nouns": "N", "verbs": "V"}


@dataclass(frozen=True)
class WordPairs:
    """Pairs of words, what people said, and the pairs of each subset that the file tells of."""

    source: str
    split_hash: str
    words: list[tuple[str, str]]
    scores: npt.NDArray[np.float64]
    subsets: dict[str, npt.NDArray[np.int64]]


def read_pairs(path: str | Path) -> WordPairs:
    """SimLex-999's own table, tab-separated with a header, or three columns without one (word, word, score).

    Raises UsageError for a file that is not there, InputError naming the line for one that is neither.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{path}: no such file of word pairs")
    numbered = enumerate(read_lines(file), start=1)
    lines = [(number, line.split("\t")) for number, line in numbered if line.strip() and line[0] != "#"]
    if not lines:
        raise InputError("no word pairs", file=str(file))
    header = lines[0][1] if set(COLUMNS) <= set(lines[0][1]) else None
    rows = []
    for number, cells in lines[header is not None :]:
        if len(cells) != len(header or COLUMNS):
            wanted = len(header or COLUMNS)
            raise InputError(f"{len(cells)} columns, not {wanted}", file=str(file), line=number)
        row = dict(zip(header or COLUMNS, (cell.strip() for cell in cells), strict=True))
        try:
            row_score = float(row["SimLex999"])
        except ValueError:
            raise InputError(f"{row['SimLex999']!r} is no score", file=str(file), line=number) from None
        rows.append((row, row_score))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    words = [(row["word1"], row["word2"]) for row, _ in rows]
    scores = np.array([score for _, score in rows])
    return WordPairs(str(path), digest, words, scores, _subsets([row for row, _ in rows]))


def _subsets(rows: list[dict[str, str]]) -> dict[str, npt.NDArray[np.int64]]:
    found = {"all": np.arange(len(rows))}

    def where(column: str, value: str) -> npt.NDArray[np.int64]:
        return np.array([i for i, row in enumerate(rows) if row.get(column) == value], dtype=np.int64)

    for name, tag in _OF_SPEECH.items():
        found[name] = where("POS", tag)
    for quartile in "1234":
        found[f"conc-q{quartile}"] = where("concQ", quartile)
    found["hard"] = where("SimAssoc333", "1")
    return {name: of for name, of in found.items() if len(of)}


@torch.no_grad()
def similarities(
    model: Any,
    words: list[tuple[str, str]],
    *,
    features: Literal["pre", "post"] = "pre",
    batch_size: int = 256,
    precision: str = "fp32",
) -> npt.NDArray[np.float64]:
    """(pairs,) similarity of the two words of each pair."""
    distinct = list(dict.fromkeys(word for pair in words for word in pair))
    place = {word: i for i, word in enumerate(distinct)}
    left, right = (torch.tensor([place[pair[side]] for pair in words]) for side in (0, 1))
    if features == "pre":
        ids, mask = model.tokenize(distinct)
        states = []
        for part, real in zip(ids.split(batch_size), mask.split(batch_size), strict=True):
            with inference(model, precision):
                states.append(model.text_state(part, real).float().cpu())
        vectors = F.normalize(torch.cat(states).double(), dim=1)
        return (vectors[left] * vectors[right]).sum(1).numpy()
    texts = embed_texts(model, distinct, batch_size=batch_size, precision=precision)
    if texts.pooled is not None:
        vectors = texts.pooled.double()
        return (vectors[left] * vectors[right]).sum(1).numpy()
    excluded = model.config.t2i_special_tokens == "exclude"
    used = texts.content_mask if excluded else texts.mask
    used = torch.where(
        used.any(1, keepdim=True), used, texts.mask
    )  # a word of special tokens alone has those
    assert texts.tokens is not None, "a text has tokens where it has no vector"
    return _interaction(texts.tokens[left], used[left], texts.tokens[right], used[right]).numpy()


def _interaction(a: Tensor, of_a: Tensor, b: Tensor, of_b: Tensor) -> Tensor:
    """tokens (p, n, d) and masks (p, n) of the two sides → (p,): the mean over either side's tokens of the nearest on
    the other, and the mean of both."""
    cosine = torch.einsum("pid,pjd->pij", a.double(), b.double())
    cosine = cosine.masked_fill(~(of_a[:, :, None] & of_b[:, None, :]), -torch.inf)
    there = cosine.amax(2).masked_fill(~of_a, 0).sum(1) / of_a.sum(1)
    back = cosine.amax(1).masked_fill(~of_b, 0).sum(1) / of_b.sum(1)
    return (there + back) / 2


def simlex(
    model: Any,
    pairs: WordPairs,
    *,
    features: Literal["pre", "post"] = "pre",
    lang: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 256,
    precision: str = "fp32",
) -> dict[str, Any]:
    """{…, "task": "simlex", "features", "pairs", "spearman", "ci95"}: correlations × 100 of each subset of the file."""
    found = similarities(model, pairs.words, features=features, batch_size=batch_size, precision=precision)
    numbers, bounds = {}, {}
    for name, rows in pairs.subsets.items():
        ours, theirs = found[rows], pairs.scores[rows]
        numbers[name] = round(100 * spearman(ours, theirs), 4)
        if bootstrap and len(rows) > 2:
            bounds[name] = _interval(ours, theirs, bootstrap, seed)
    return {
        "checkpoint": model.checkpoint_hash,
        "data": pairs.source,
        "split": "all",
        "split_hash": pairs.split_hash,
        "lang": lang or "en",
        "similarity": model.similarity_kind,
        "task": "simlex",
        "features": features,
        "prompts": "none",
        "n": len(pairs.words),
        "pairs": {name: len(rows) for name, rows in pairs.subsets.items()},
        "spearman": numbers,
        "ci95": bounds,
    }


def _interval(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], count: int, seed: int
) -> list[float]:
    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        drawn = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
        return np.array([100 * spearman(ours[drawn], theirs[drawn])])

    return interval(statistic, len(ours), count=count, seed=seed)[0]

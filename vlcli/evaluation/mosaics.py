"""The pointing test: name one of four pictures in a 2×2 mosaic; does the similarity map peak in its cell?

A mosaic file is JSONL, one object a line: {"images": [four ids, row by row], "target": 0..3, "text": the
name of the target}. Chance is 25 %. The answer is the cell whose patches are hottest in the mean (heat.py has
the map of each kind of similarity; ties count as wrong). `marks`, of a token-wise model, says how many of the
patches that choose one of the name's tokens as their best (the papers' display) lie in the right cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.alignment import Text, align, encode_label
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.embed import Progress
from vlcli.evaluation.heat import heat, patch_features
from vlcli.evaluation.metrics import percent

CELLS = 4


@dataclass(frozen=True)
class Mosaic:
    """Ids of the pictures in reading order, the cell that `text` names."""

    images: tuple[str, str, str, str]
    target: int
    text: str


def load_mosaics(path: str | Path) -> list[Mosaic]:
    """A mosaic file; InputError names the line that is not one."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{path}: no such mosaic file")
    mosaics = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            a, b, c, d = map(str, row["images"])
            target, text = int(row["target"]), str(row["text"])
            if target not in range(CELLS):
                raise ValueError(target)
        except (ValueError, KeyError, TypeError):
            cause = 'not {"images": [four ids], "target": 0 to 3, "text": "…"}'
            raise InputError(cause, file=str(path), line=number) from None
        mosaics.append(Mosaic((a, b, c, d), target, text))
    if not mosaics:
        raise InputError("no mosaics", file=str(path))
    return mosaics


def assemble(cells: Sequence[torch.Tensor]) -> torch.Tensor:
    """Four pictures (3, s, s), in reading order, as one (3, 2s, 2s)."""
    top, bottom = torch.cat(list(cells[:2]), 2), torch.cat(list(cells[2:]), 2)
    return torch.cat([top, bottom], 1)


def cells_of(grid: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(h, w): the cell that each patch's centre lies in, −1 for a patch astride the middle of an odd grid."""
    cell = np.full(grid, -1, dtype=np.int64)
    h, w = grid
    for r in range(h):
        for c in range(w):
            if 2 * r + 1 != h and 2 * c + 1 != w:
                cell[r, c] = 2 * (2 * r + 1 > h) + (2 * c + 1 > w)
    return cell


def pointing(
    model: Any,
    mosaics: Sequence[Mosaic],
    picture: Callable[[str], Any],
    *,
    prompt: str = "{}",
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 8,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy in percent of pointing at the named cell, with its bootstrap interval over the mosaics.

    `picture(id)` gives the decoded picture. A tower that takes any size sees each picture at its full
    input size (the mosaic is twice as wide and high); one that does not sees each at half.
    """
    scale = 2 if takes_any_size(model) else 1
    size = scale * model.image_size // 2

    @lru_cache(maxsize=1024)
    def pixels(name: str) -> torch.Tensor:  # (3, size, size)
        return model.preprocess_image(picture(name), size)

    @lru_cache(maxsize=4096)
    def label(text: str) -> Text:
        return encode_label(model, text, prompt)

    right, marks, marked, shape = [], 0, 0, (0, 0)
    for start in range(0, len(mosaics), batch_size):
        part = mosaics[start : start + batch_size]
        stack = torch.stack([assemble([pixels(name) for name in mosaic.images]) for mosaic in part])
        patches = patch_features(model, stack, precision)
        shape = patches.grid
        cell = cells_of(shape)
        for row, mosaic in enumerate(part):
            text = label(mosaic.text)
            hot = heat(patches, row, text)
            means = [float(hot[cell == c].mean(dtype=np.float64)) for c in range(CELLS)]
            others = max(means[c] for c in range(CELLS) if c != mosaic.target)
            right.append(means[mosaic.target] > others)
            if model.similarity_kind == "tokenwise":
                on_label = align(patches.vectors[row], text, shape).on_label
                marked += int((on_label & (cell >= 0)).sum())
                marks += int((on_label & (cell == mosaic.target)).sum())
        if progress is not None:
            progress(len(part))
    hits = np.array(right, dtype=np.float64)
    result: dict[str, Any] = {
        "n": len(hits),
        "accuracy": percent(hits.mean()),
        "ci95": [],
        "chance": 100 / CELLS,
        "marks": percent(marks / marked) if marked else None,
        "grid": list(shape),
        "prompt": prompt,
    }
    if bootstrap and len(hits) > 1:
        statistic = lambda weights: np.array([100 * (hits @ weights) / weights.sum()])  # noqa: E731
        result["ci95"] = interval(statistic, len(hits), count=bootstrap, seed=seed)[0]
    return result


@torch.no_grad()
def takes_any_size(model: Any) -> bool:
    """Whether the image tower reads twice its configured size: convolutions do, fixed positions do not."""
    pixels = torch.zeros(1, 3, 2 * model.image_size, 2 * model.image_size, device=model.device)
    try:
        tokens = model.image_features(pixels).tokens
    except (AssertionError, RuntimeError, ValueError):
        return False
    h, w = model.grid
    return tokens.shape[1] == 4 * h * w

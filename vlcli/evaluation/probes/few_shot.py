"""A few training rows of each class, drawn by a seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vlcli.errors import InputError

SEEDS = (0, 1, 2)


def draw(labels: Tensor, classes: int, shots: int, seed: int) -> Tensor:
    """Places of `shots` rows of each class, class by class. What a class's draw is depends on the seed, the class and
    the number of its rows alone; fewer shots are the first of more. InputError for a class with too few rows.
    """
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels, minlength=classes).tolist()
    chosen, start = [], 0
    for label, count in enumerate(counts):
        if 0 < count < shots:
            raise InputError(f"class {label} has {count} training rows, {shots} shots are asked for")
        drawn = np.random.default_rng([seed, label]).permutation(count)[:shots]
        chosen.append(order[start + torch.from_numpy(drawn)])
        start += count
    return torch.cat(chosen)

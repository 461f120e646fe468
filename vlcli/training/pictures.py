"""Pixels for training, in worker processes that know where an image lies and nothing else of the data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlcli.images.augment import Augment
from vlcli.shards.pixels import LocatedImages, Location


class Wanted(NamedTuple):
    """One picture that a step needs: where it lies, and what its augmentation is drawn from."""

    location: Location
    seed: str


class Pictures(NamedTuple):
    """The pictures of a process's share of a step; those that could not be had are black, and `bad` says why."""

    pixels: Tensor  # (b, size, size, 3) uint8
    bad: dict[int, str]  # place in the share → cause


class _Decoded(Dataset[Any]):
    def __init__(self, augment: Augment) -> None:
        self.augment, self.images = augment, LocatedImages()

    def __getitem__(self, wanted: Wanted) -> np.ndarray | str:
        try:
            return self.augment(self.images.read(wanted.location), random.Random(wanted.seed))
        except (ValueError, OSError) as error:  # an InputError is a ValueError
            return " ".join(str(error).split()) or type(error).__name__


class _Batch:
    """Picklable, for workers to put pictures together."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, found: list[np.ndarray | str]) -> Pictures:
        pixels = np.zeros((len(found), self.size, self.size, 3), np.uint8)
        bad = {}
        for i, picture in enumerate(found):
            if isinstance(picture, str):
                bad[i] = picture
            else:
                pixels[i] = picture
        return Pictures(torch.from_numpy(pixels), bad)


def pictures(
    plan: Callable[[], Iterable[list[Wanted]]], augment: Augment, *, workers: int, pin_memory: bool
) -> Iterator[Pictures]:
    """The pictures of each step of `plan`, in its order, whatever the number of workers."""
    return iter(
        DataLoader(
            _Decoded(augment),
            batch_sampler=_Plan(plan),
            collate_fn=_Batch(augment.size),
            num_workers=workers,
            # its own, or each start would draw from the global one, and a resumed run would see other dropout
            generator=torch.Generator().manual_seed(0),
            # polars' threads do not survive a fork
            multiprocessing_context="spawn" if workers else None,
            pin_memory=pin_memory,
        )
    )


class _Plan:
    """A batch sampler from a generator function."""

    def __init__(self, plan: Callable[[], Iterable[list[Wanted]]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[list[Wanted]]:
        return iter(self.plan())

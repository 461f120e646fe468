"""Which rows are near which, by one of three measures: bytes, perceptual hashes, vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vlcli.curation.bounds import Bound
from vlcli.curation.embeddings import Vectors
from vlcli.curation.groups import Groups
from vlcli.curation.hamming import near_codes
from vlcli.curation.near_vectors import Clusters, at_most, cosines, near_vectors

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Twins:
    """What was found for n rows. `twin` (n,) int64 is the row that a dropped one gives way to, -1 for those that stay:
    the first of its group, or the nearest of the other set. `measure` (n,) is what stands between the two themselves,
    which is beyond the bound where only others link them."""

    twin: np.ndarray
    measure: np.ndarray


class Method(Protocol):
    """A measure of what a row shows. Keys are what `collect` of a row's image gives, one after another."""

    @property
    def name(self) -> str: ...
    @property
    def farther(self) -> int:
        """1 where a larger measure is farther apart, -1 where it is nearer."""
        ...

    def among(self, keys: Any, progress: Progress) -> Twins: ...
    def against(self, keys: Any, others: Any, progress: Progress) -> Twins: ...
    def said(self, measure: float) -> str: ...
    def beyond(self, measure: float) -> bool: ...
    def rules(self) -> dict[str, Any]: ...


class _Nearest:
    """The nearest of the other set for each row; of equally near ones the first."""

    def __init__(self, rows: int) -> None:
        self.twin = np.full(rows, -1, np.int64)
        self.near = np.full(rows, -np.inf)

    def offer(self, rows: np.ndarray, others: np.ndarray, near: np.ndarray) -> None:
        order = np.lexsort((others, -near, rows))
        rows, best = np.unique(rows[order], return_index=True)
        others, near = others[order][best], near[order][best]
        better = (near > self.near[rows]) | ((near == self.near[rows]) & (others < self.twin[rows]))
        self.twin[rows[better]], self.near[rows[better]] = others[better], near[better]


def _gives_way(first: np.ndarray) -> np.ndarray:
    return np.where(first == np.arange(len(first)), -1, first)


class Bytes:
    """Equal files. Keys (n, 2) uint64: the first 128 bits of SHA-256."""

    name = "bytes"
    farther = 1

    def among(self, keys: np.ndarray, progress: Progress) -> Twins:
        return Twins(_gives_way(_first_equal(keys)), np.zeros(len(keys)))

    def against(self, keys: np.ndarray, others: np.ndarray, progress: Progress) -> Twins:
        first = _first_equal(np.concatenate([others, keys]))[len(others) :]
        return Twins(np.where(first < len(others), first, -1), np.zeros(len(keys)))

    def said(self, measure: float) -> str:
        return "the same bytes as"

    def beyond(self, measure: float) -> bool:
        return False

    def rules(self) -> dict[str, Any]:
        return {"method": self.name}


def _first_equal(keys: np.ndarray) -> np.ndarray:
    """keys (n, 2) → (n,) the first row with the same key."""
    order = np.lexsort((keys[:, 0], keys[:, 1]))  # stable: of equal keys the first row stands first
    inorder = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = (inorder[1:] != inorder[:-1]).any(1)
    first = np.empty(len(keys), np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


@dataclass(frozen=True)
class Hashes:
    """64-bit perceptual hashes within `radius` bits. Keys (n,) uint64."""

    radius: int
    name: str = "phash"
    farther: int = 1

    def among(self, keys: np.ndarray, progress: Progress) -> Twins:
        codes, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        groups = Groups(len(codes))
        for a, b, _ in near_codes(codes, self.radius):
            groups.link(a, b)
            progress("comparing", 0)
        # the first row of a group need not have its smallest code
        earliest = np.full(len(codes), len(keys))
        np.minimum.at(earliest, groups.first(), first)
        twin = earliest[groups.first()][inverse]
        return Twins(_gives_way(twin), np.bitwise_count(keys ^ keys[twin]).astype(float))

    def against(self, keys: np.ndarray, others: np.ndarray, progress: Progress) -> Twins:
        codes, inverse = np.unique(keys, return_inverse=True)
        theirs, first = np.unique(others, return_index=True)
        nearest = _Nearest(len(codes))
        for a, b, distance in near_codes(codes, self.radius, theirs):
            nearest.offer(a, first[b], -distance.astype(float))
            progress("comparing", 0)
        return Twins(nearest.twin[inverse], -nearest.near[inverse])

    def said(self, measure: float) -> str:
        return f"{measure:.0f} of 64 bits from"

    def beyond(self, measure: float) -> bool:
        return measure > self.radius

    def rules(self) -> dict[str, Any]:
        return {"method": self.name, "radius": self.radius}


@dataclass(frozen=True)
class Cosines:
    """Vectors whose cosine is within `bound`, by ALIGN's clusters. Keys are `Vectors`."""

    bound: Bound
    clusters: Clusters
    seed: int = 0
    threads: int | None = None  # at most; None: as many as BLAS has
    name: str = "vectors"
    farther: int = -1

    def among(self, keys: Vectors, progress: Progress) -> Twins:
        groups = Groups(len(keys))
        with at_most(self.threads):
            for _ in near_vectors(
                keys, self.bound, self.clusters, groups=groups, seed=self.seed, progress=progress
            ):
                pass  # linked as they were found
        twin = _gives_way(groups.first())
        measure, dropped = np.ones(len(keys)), np.flatnonzero(twin >= 0)
        measure[dropped] = cosines(keys, dropped, keys, twin[dropped])
        return Twins(twin, measure)

    def against(self, keys: Vectors, others: Vectors, progress: Progress) -> Twins:
        nearest = _Nearest(len(keys))
        with at_most(self.threads):
            for a, b, cosine in near_vectors(
                keys, self.bound, self.clusters, others, seed=self.seed, progress=progress
            ):
                nearest.offer(a, b, cosine)
        return Twins(nearest.twin, nearest.near)

    def said(self, measure: float) -> str:
        return f"cosine {measure:.4f} with"

    def beyond(self, measure: float) -> bool:
        return not self.bound.holds(measure)

    def rules(self) -> dict[str, Any]:
        c = self.clusters
        named = {"clusters": c.clusters, "nearest": c.nearest, "shared": c.shared, "seed": self.seed}
        return {"method": self.name, "min-cosine": str(self.bound), **named}

"""The numbers of spec §5.1, from ranks and hits; percentages are floats from 0 to 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

RECALL_AT = (1, 5, 10)


def percent(share: float) -> float:
    """A share of 1 as a percentage with four decimals (finer than any n that fits in memory warrants)."""
    return round(100.0 * float(share), 4)


def recall_hits(ranks: npt.NDArray[np.int64], ks: Sequence[int] = RECALL_AT) -> npt.NDArray[np.float64]:
    """(q,) 1-based rank of each query's best positive → (q, len(ks)): 1.0 where it stands in the top K."""
    return (ranks[:, None] <= np.asarray(ks)[None, :]).astype(np.float64)


def recalls(ranks: npt.NDArray[np.int64], ks: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """`{"R@1": …}`: % of the queries with at least one positive among the top K."""
    return {f"R@{k}": percent(share) for k, share in zip(ks, recall_hits(ranks, ks).mean(0), strict=True)}


def mean_recall(*directions: Mapping[str, float] | None) -> float:
    """The plain mean of the reported recalls: six, or three where only one direction exists."""
    values = [value for direction in directions if direction is not None for value in direction.values()]
    return round(sum(values) / len(values), 4)

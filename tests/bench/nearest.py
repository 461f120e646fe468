"""The ten nearest of each of 100,000 texts among 100,000 images, and all ranks, beside faiss's exact index, in one run.

    OMP_NUM_THREADS=2 python tests/bench/nearest.py [--images 100000] [--texts 100000] [--width 256]

The floor is the product: 2 · 10¹⁰ · 256 operations. Ours is `top` (what `retrieve --predictions` writes) and `ranks`
(what `retrieve` counts, in both directions), theirs `IndexFlatIP.search` of one direction. Both must find the same
neighbours. What either holds beside the vectors is printed as the growth of its peak memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F

from vlcli.evaluation.ranking import top
from vlcli.evaluation.retrieval import ranks
from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.objectives.late_interaction import global_similarity

K = 10


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    before, start = peak(), time.perf_counter()
    found = call()
    return time.perf_counter() - start, peak() - before, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    asked = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    looks = F.normalize(torch.randn(asked.images, asked.width, generator=generator), dim=-1)
    shown = torch.arange(asked.texts) * asked.images // asked.texts
    words = looks[shown] + 0.2 * torch.randn(asked.texts, asked.width, generator=generator)
    words = F.normalize(words, dim=-1)
    mask = torch.ones(asked.texts, 1, dtype=torch.bool)
    images, texts = ImageTokens(None, looks), TextTokens(None, mask, mask, words)
    positives: list[set[int]] = [set() for _ in range(asked.images)]
    for j, i in enumerate(shown.tolist()):
        positives[i].add(j)

    def similarity(some: ImageTokens, others: TextTokens) -> Any:
        assert some.pooled is not None
        assert others.pooled is not None
        return global_similarity(some.pooled, others.pooled)

    def flat() -> Any:
        index = faiss.IndexFlatIP(asked.width)
        index.add(looks.numpy())
        return index.search(words.numpy(), K)[1]

    def ours() -> Any:
        found = top(similarity, images, texts, k=K, direction="t2i")
        return np.array([one.candidates for one in found])

    products = 2 * asked.images * asked.texts * asked.width
    with torch.no_grad():
        for name, call in (
            ("ours, ten nearest", ours),
            ("faiss, ten nearest", flat),
            ("ours, ranks of both directions", lambda: ranks(similarity, images, texts, positives)),
        ):
            seconds, grown, found = timed(call)
            if name.startswith("ours, ten"):
                expected, first = found, seconds
            elif name.startswith("faiss"):
                print(f"  {100 * (found == expected).mean():.3f} % of the neighbours are the same")
            print(
                f"  {name:31} {seconds:7.1f} s   {seconds / first:.2f} of ours   "
                f"{products / seconds / 1e9:.0f} GFLOP/s   {grown:.0f} MiB more"
            )


if __name__ == "__main__":
    main()

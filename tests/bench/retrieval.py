"""Retrieval by late interaction beside the plain chunked einsum, in one run: ranks of both directions.

    OMP_NUM_THREADS=2 python tests/bench/retrieval.py [--images 1000] [--texts 5000] [--turns 3]

5,000 × 25,000 pairs of 49 patches and captions of 8 to 32 tokens in 256 dimensions take 60 TFLOP for one matrix of
token products; the time is proportional to the number of pairs, of which a twenty-fifth is measured by default. The
einsum goes over images a chunk at a time, pads texts to the longest, has the whole tensor of token products and keeps
both score matrices, as the evaluators of CLIP keep theirs. Ours is `ranks`: no matrix is kept. Both must find the same
ranks.
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any

import torch
import torch.nn.functional as F

from vlcli.evaluation.retrieval import Ranks, ranks
from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.objectives.late_interaction import late_interaction

PATCHES, WIDTH, LONGEST = 49, 256, 32
CHUNK = 1 << 28  # token products of a chunk of the einsum: 1 GiB


def features(images: int, texts: int) -> tuple[ImageTokens, TextTokens]:
    generator = torch.Generator().manual_seed(0)
    looks = F.normalize(torch.randn(images, PATCHES, WIDTH, generator=generator), dim=-1)
    words = torch.randn(texts, LONGEST, WIDTH, generator=generator)
    # captions of an image are near one of its patches
    words += 0.5 * looks[torch.arange(texts) * images // texts, :1]
    lengths = torch.randint(8, LONGEST + 1, (texts,), generator=generator)
    mask = torch.arange(LONGEST) < lengths[:, None]
    return ImageTokens(looks, None), TextTokens(F.normalize(words, dim=-1), mask, mask, None)


def by_einsum(
    images: torch.Tensor, texts: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both score matrices (images, texts)."""
    step = max(1, CHUNK // (len(texts) * PATCHES * LONGEST))
    i2t, t2i = [], []
    for part in images.split(step):
        products = torch.einsum("imd,jnd->ijmn", part, texts)
        i2t.append(products.masked_fill(~mask[None, :, None], -torch.inf).amax(3).mean(2))
        best = products.amax(2)
        t2i.append((best * mask).sum(2) / mask.sum(1))
    return torch.cat(i2t), torch.cat(t2i)


def ranks_of(i2t: torch.Tensor, t2i: torch.Tensor, positives: list[set[int]]) -> Ranks:
    right = torch.zeros(i2t.shape, dtype=torch.bool)
    for i, columns in enumerate(positives):
        right[i, list(columns)] = True
    best = i2t.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    images = 1 + ((i2t >= best - 1e-6) & ~right).sum(1)
    best = t2i.masked_fill(~right, -torch.inf).amax(0, keepdim=True)
    return Ranks(images.numpy(), (1 + ((t2i >= best - 1e-6) & ~right).sum(0)).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    images, texts = features(asked.images, asked.texts)
    positives: list[set[int]] = [set() for _ in range(asked.images)]
    for j in range(asked.texts):  # the captions of an image stand together, as in every set
        positives[j * asked.images // asked.texts].add(j)
    assert images.tokens is not None
    assert texts.tokens is not None

    def similarity(some: ImageTokens, others: TextTokens) -> Any:
        return late_interaction(some.tokens, others.tokens, others.mask, others.content_mask)

    theirs = functools.partial(by_einsum, images.tokens, texts.tokens, texts.mask)
    best = {"einsum": float("inf"), "ours": float("inf")}
    with torch.no_grad():
        for _ in range(asked.turns):
            start = time.perf_counter()
            expected = ranks_of(*theirs(), positives)
            best["einsum"] = min(best["einsum"], time.perf_counter() - start)
            start = time.perf_counter()
            found = ranks(similarity, images, texts, positives)
            best["ours"] = min(best["ours"], time.perf_counter() - start)
    wrong = sum(int((a != b).sum()) for a, b in zip(found, expected, strict=True))
    pairs = asked.images * asked.texts
    products = 2 * pairs * PATCHES * float(texts.mask.sum(1).float().mean()) * WIDTH
    print(f"{asked.images:,} × {asked.texts:,} pairs; {wrong} of {asked.images + asked.texts} ranks differ")
    for name, seconds in best.items():
        whole = seconds * 5000 * 25000 / pairs
        print(
            f"  {name:8} {seconds:7.2f} s   {best['einsum'] / seconds:.2f} × einsum's speed   "
            f"{products / seconds / 1e9:.0f} GFLOP/s of unpadded products   5,000 × 25,000: {whole / 60:.1f} min"
        )


if __name__ == "__main__":
    main()

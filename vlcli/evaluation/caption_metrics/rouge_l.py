"""ROUGE-L as coco-caption computes it: the longest common subsequence, best precision and best recall over the
references [Lin 2004], F with beta 1.2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlcli.evaluation.caption_metrics.corpus import Words

BETA = 1.2


def rouge_l(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> npt.NDArray[np.float64]:
    """(n,) of each caption, 0 to 1; a corpus has their mean.

    The best precision and the best recall may be those of two references.
    """
    return np.array(
        [_one(words, some) for words, some in zip(captions, references, strict=True)], dtype=np.float64
    )


def _one(words: Words, references: Sequence[Words]) -> float:
    common = common_lengths(words, references)
    precision = max(common) / len(words) if words else 0.0
    recall = max(length / len(some) if some else 0.0 for length, some in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_lengths(words: Words, references: Sequence[Words]) -> list[int]:
    """Length of the longest common subsequence of `words` with each reference.

    Bit i of `rows` is 0 where the table of the textbook's algorithm grows at word i, so that a word of a reference
    costs one addition [Hyyrö 2004].
    """
    where: dict[str, int] = {}
    for i, word in enumerate(words):
        where[word] = where.get(word, 0) | 1 << i
    full = (1 << len(words)) - 1
    found = []
    for reference in references:
        rows = full
        for word in reference:
            if mask := where.get(word, 0):
                both = rows & mask
                rows = ((rows + both) | (rows - both)) & full
        found.append(len(words) - rows.bit_count())
    return found

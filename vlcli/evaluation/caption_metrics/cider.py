"""CIDEr-D, which coco-caption calls CIDEr [Vedantam et al. 2015, §5]: cosines of tf-idf vectors of n-grams, clipped,
with a Gaussian of the difference of lengths (sigma 6), the mean over 1 to 4 words, times 10.

Documents are the images that are scored, and their references say how many of them have an n-gram. A number is thus
one of its set: the same captions among other images score otherwise, and a single image scores 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlcli.evaluation.caption_metrics.corpus import Corpus, found_in

Floats = npt.NDArray[np.float64]
SIGMA = 6.0
SCALE = 10.0


def cider(corpus: Corpus) -> Floats:
    """(n,) of each caption, 0 to 10; a corpus has their mean."""
    n, references = corpus.images, len(corpus.image)
    score = np.zeros(n)
    # coco-caption measures length in pairs of words: it differs from words where a sentence has none
    pairs, reference_pairs = (np.maximum(0, one - 1) for one in (corpus.length, corpus.reference_length))
    apart = (pairs[corpus.image] - reference_pairs).astype(np.float64)
    penalty = np.exp(-(apart**2) / (2 * SIGMA**2))
    for ours, theirs in corpus.grams:
        image = corpus.image[theirs.sentence]
        seen = np.unique(image * theirs.distinct + theirs.gram) % theirs.distinct
        documents = np.maximum(1, np.bincount(seen, minlength=theirs.distinct))
        rarity = np.log(n) - np.log(documents)
        weight, other = ours.times * rarity[ours.gram], theirs.times * rarity[theirs.gram]
        norm = np.sqrt(np.bincount(ours.sentence, weight**2, n))[corpus.image]
        other_norm = np.sqrt(np.bincount(theirs.sentence, other**2, references))
        hit, place = found_in(
            image * theirs.distinct + theirs.gram, ours.sentence * ours.distinct + ours.gram
        )
        product = np.minimum(weight[place[hit]], other[hit]) * other[hit]
        dot = np.bincount(theirs.sentence[hit], product, references)
        cosine = np.divide(dot, norm * other_norm, out=np.zeros(references), where=norm * other_norm > 0)
        score += np.bincount(corpus.image, cosine * penalty, n)
    return score / len(corpus.grams) / np.bincount(corpus.image, minlength=n) * SCALE

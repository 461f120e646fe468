"""Vectors in two dimensions: PCA, which is exact and quick, or t-SNE, which keeps neighbours together."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from vlcli.errors import UsageError, VlcliError

Projection = Literal["pca", "tsne"]
Points = npt.NDArray[np.float32]


def project(vectors: npt.NDArray[np.float32], how: Projection = "pca", *, seed: int = 0) -> Points:
    """vectors (n, d) → (n, 2). Equal input and seed give equal places.

    Raises UsageError for fewer than three vectors, VlcliError for t-SNE without scikit-learn.
    """
    if len(vectors) < 3:
        raise UsageError(f"{len(vectors)} vectors make no map: it takes 3")
    if how == "pca":
        return pca(vectors)
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise VlcliError("t-SNE needs scikit-learn", remedy="pip install 'vlcli[figures]'") from None
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    machine = TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
    return np.asarray(machine.fit_transform(vectors.astype(np.float32)), np.float32)


def pca(vectors: npt.NDArray[np.float32]) -> Points:
    """The two directions of greatest variance; of each the coordinate of greatest size is positive, so that a map does
    not turn over from one machine to the next."""
    centred = torch.from_numpy(vectors).double()
    centred = centred - centred.mean(0)
    _, basis = torch.linalg.eigh(centred.T @ centred)  # ascending
    points = (centred @ basis[:, [-1, -2]]).numpy()
    largest = points[np.abs(points).argmax(0), [0, 1]]
    return (points * np.where(largest < 0, -1, 1)).astype(np.float32)

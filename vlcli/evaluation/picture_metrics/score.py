"""The numbers of generated pictures: beside real ones in a net, and beside their captions by an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.bootstrap import interval
from vlcli.evaluation.describe import describe
from vlcli.evaluation.embed import embed_images
from vlcli.evaluation.picture_metrics.features import FeatureNet
from vlcli.evaluation.picture_metrics.fid import frechet_distance, moments
from vlcli.evaluation.picture_metrics.kid import kid
from vlcli.evaluation.tasks import Announce, Retrieval, silent
from vlcli.evaluation.vectors import image_vectors, text_vectors

GENERATED_BY = "generated_by"  # the column in which generated rows name the models that made them
_ROWS = 4096  # vectors whose moments are taken at once


def makers(table: Any) -> set[str]:
    """The hashes of all checkpoints that made the rows, as far as these say: `generated_by.models`."""
    if GENERATED_BY not in table.frame.columns:
        return set()
    found: set[str] = set()
    for said in table.frame[GENERATED_BY].to_list():
        if isinstance(said, str):
            try:
                said = orjson.loads(said)
            except orjson.JSONDecodeError:
                continue
        models = said.get("models") if isinstance(said, Mapping) else None
        if isinstance(models, Mapping):
            found.update(value for value in models.values() if isinstance(value, str))
    return found


def refuse_the_maker(table: Any, checkpoint: str) -> None:
    """Raises UsageError where the encoder that is to judge pictures took part in making them: it likes what it asked
    for."""
    if checkpoint in makers(table):
        raise UsageError(
            f"--encoder: the checkpoint {checkpoint} took part in generating these pictures",
            remedy="judge them by another one",
        )


def pictures_hash(table: Any) -> str:
    """16 hex over the pictures' bytes and their texts, in order."""
    digest = hashlib.sha256()
    for row in range(len(table)):
        digest.update(hashlib.sha256(table.image_bytes(row)).digest())
        digest.update(orjson.dumps(table.texts[row]))
    return digest.hexdigest()[:16]


def described(
    pictures: str, generated: Any, real: Any | None, *, split: str | None = None, lang: str | None = None
) -> dict[str, Any]:
    """What the numbers are of: `checkpoint` is `pictures`, the hash of the generated ones; the data are the real ones,
    where there are any."""
    table = generated if real is None else real
    texts = [texts[0] for texts in table.texts if texts]
    named = SimpleNamespace(checkpoint_hash=pictures, similarity_kind="–")
    return {**describe(named, table, texts, split=split, lang=lang), "n": len(generated)}


def distances(
    generated: Any,
    real: Any,
    net: FeatureNet,
    *,
    subsets: int = 100,
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "fp32",
    cache: Any = None,
    announce: Announce = silent,
) -> dict[str, Any]:
    """`kid`, its `kid_sd` over subsets, `fid`, the net and the numbers of pictures, of two PairTables.

    Every row is a picture; features beyond 1 GiB lie in a file. Raises InputError for fewer than two pictures.
    """
    sides = []
    for what, table in (("generated pictures", generated), ("real pictures", real)):
        if len(table) < 2:
            raise InputError("KID and FID want two pictures at least", file=table.source)
        told = announce(what, len(table))
        found = embed_images(
            net, table, progress=told, batch_size=batch_size, precision=precision, cache=cache
        ).pooled
        assert found is not None, "a net has a vector for each picture"
        vectors = found.numpy()
        if not all(np.isfinite(vectors[i : i + _ROWS]).all() for i in range(0, len(vectors), _ROWS)):
            raise InputError(f"features of {net.name} are not finite", file=table.source)
        sides.append(vectors)
    near = kid(*sides, subsets=subsets, seed=seed)
    gaussians = [
        moments((side[i : i + _ROWS] for i in range(0, len(side), _ROWS)), net.dim) for side in sides
    ]
    return {
        "kid": near.mean,
        "kid_sd": near.deviation,
        "kid_subsets": near.subsets,
        "kid_size": near.size,
        "fid": frechet_distance(*gaussians),
        "features": net.record(),
        "n": len(generated),
        "n_real": len(real),
    }


def fidelity(
    generated: Any,
    model: Any,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    cache: Any = None,
    batch_size: int = 64,
    precision: str = "fp32",
    announce: Announce = silent,
) -> dict[str, Any]:
    """`clip_score`, the mean over pictures of 100 · max(0, cosine with its caption) [Hessel et al. 2021, without their
    factor 2.5, as torchmetrics has it], and `R@1`, how often a picture finds its caption among all: with 95 % intervals
    over pictures. Of several captions of a picture the mean; of a token-wise model the cosine is of mean tokens.

    Raises UsageError where the model made the pictures.
    """
    from vlcli.text.prompts import load_prompts

    refuse_the_maker(generated, model.checkpoint_hash)
    pool = Retrieval(
        model,
        generated,
        load_prompts("none"),
        batch_size=batch_size,
        precision=precision,
        cache=cache,
        announce=announce,
    )
    recall = pool.metrics(bootstrap=bootstrap, seed=seed, directions=("i2t",))
    images = image_vectors(pool.images)  # (n, d)
    texts = text_vectors(pool.texts, model.config)
    scores = np.array(
        [
            float((texts[sorted(own)] @ image).clamp(min=0).mean()) * 100
            for image, own in zip(images, pool.gallery.positives, strict=True)
        ]
    )
    bounds = (
        interval(lambda w: np.array([w @ scores / w.sum()]), len(scores), count=bootstrap, seed=seed)
        if bootstrap and len(scores) > 1
        else []
    )
    of_recall = recall["ci95"].get("i2t", {}).get("R@1")
    return {
        "clip_score": float(scores.mean()),
        "R@1": recall["i2t"]["R@1"],
        "texts": len(pool.gallery.texts),
        "encoder": model.checkpoint_hash,
        "ci95": {
            **({"clip_score": bounds[0]} if bounds else {}),
            **({"R@1": of_recall} if of_recall else {}),
        },
    }

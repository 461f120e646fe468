"""Vocabularies learnt from the captions of pairs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from vlcli.curation.ends import Source
from vlcli.curation.text_fields import INSTEAD, field_texts
from vlcli.errors import UsageError
from vlcli.records.atomic import check_folder
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.reader import repeatable
from vlcli.text.vocabulary import KINDS, learn


def learn_vocabulary(
    kind: str,
    size: int,
    source: Source,
    output: str,
    *,
    force: bool = False,
    max_bad: str = "0",
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Learns a vocabulary from the captions of pairs into the directory `output`, which appears when it is whole.

    A WordPiece vocabulary reads the input twice, so that a pipe is spooled first.
    """
    if kind not in KINDS:
        raise UsageError(f"--train {kind!r} is not one of {', '.join(KINDS)}")
    place = Path(os.path.realpath(output))
    if place.exists() and not place.is_dir():
        raise UsageError(f"{output} is not a directory")
    if place.exists() and any(place.iterdir()) and not force:
        raise UsageError(f"{output} exists", remedy="--force replaces its vocabulary")
    check_folder(place)
    inputs = repeatable(source.inputs) if kind == "wordpiece" else source.inputs
    counts = {"in": 0, "bad": 0, "texts": 0}

    def texts() -> Iterator[str]:
        bad = BadRows(max_bad)
        counts["texts"] = 0
        for batch in source.batches(inputs, bad):
            for part in _captions(batch):
                counts["texts"] += len(part)
                yield from part
            on_progress(len(batch))
        counts.update({"in": bad.seen, "bad": bad.count})

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent) as folder:
        size = learn(kind, texts, size, Path(folder))
        place.mkdir(exist_ok=True)
        for file in sorted(Path(folder).iterdir(), key=lambda f: f.name == "tokenizer.json"):
            shutil.move(file, place / file.name)
    return {**counts, "pieces": size}


def _captions(batch: Batch) -> Iterator[pl.Series]:
    """The texts of the batch, and ZERO's three fields of its rows without `text`."""
    lines = field_texts(batch, "text")
    yield lines["text"]
    without = np.ones(len(batch), np.bool_)
    without[lines["row"].to_numpy()] = False
    if without.any():
        for name in INSTEAD:
            others = field_texts(batch, name)
            yield others["text"].filter(pl.Series(without[others["row"].to_numpy()]))

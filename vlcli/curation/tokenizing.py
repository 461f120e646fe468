"""Pairs with the ids of their texts as a column, and vocabularies learnt from the texts of pairs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlcli import __version__
from vlcli.curation.ends import Source, Target
from vlcli.curation.text_column import by_row, with_column
from vlcli.curation.text_fields import INSTEAD, field_texts
from vlcli.errors import UsageError
from vlcli.records import lineage
from vlcli.records.atomic import check_folder
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.identity import Identity
from vlcli.records.reader import repeatable
from vlcli.records.rejects import RejectsWriter
from vlcli.records.writer import open_writer
from vlcli.text.tokenizers import LENGTHS, OTHER_LENGTH, TextTokenizer, load_tokenizer
from vlcli.text.vocabulary import KINDS, learn

IDS, POSITIONS = "input_ids", "positions"

Progress = Callable[[int], None]  # rows of this batch


@dataclass(frozen=True)
class Encoding:
    """How texts become ids. `label` is looked for in every text, or the value of `label_column` in its row's."""

    tokenizer: str = "wordpiece-zh"
    length: int | None = None
    label: str | None = None
    label_column: str | None = None

    def check(self) -> None:
        if self.label is not None and self.label_column is not None:
            raise UsageError("--find and --find-column both say what to find")
        if not (self.label is None or self.label.strip()):
            raise UsageError("--find: the label is empty")


def tokenize_pairs(
    encoding: Encoding,
    source: Source,
    target: Target,
    *,
    max_bad: str = "0",
    on_progress: Progress = lambda _: None,
) -> dict[str, int]:
    """Writes the pairs with `input_ids`, and `positions` where a label is to be found; returns counts.

    A text that is one string has list[int]; a list of texts has a list of those. A row without text has null.
    Raises UsageError for what cannot be, InputError for damage and for more bad rows than `max_bad`.
    """
    encoding.check()
    target.refuse_clashes()
    tokenizer = load_tokenizer(encoding.tokenizer)
    length = encoding.length or LENGTHS.get(encoding.tokenizer, OTHER_LENGTH)
    tokenizer.encode(["a"], length)  # a length without room is told before anything is read
    rules = {"tokenizer": f"sha256:{tokenizer.fingerprint}", "length": length}
    counts = dict.fromkeys(("in", "written", "bad", "texts", "tokens", "cut", "found"), 0)
    missing = encoding.label_column
    with ExitStack() as stack:
        rejects = stack.enter_context(RejectsWriter(target.rejects, force=target.force))
        writer = stack.enter_context(
            open_writer(
                target.output,
                format=target.format,
                force=target.force,
                image_root=source.image_root,
                step=lineage.step("tokenize", __version__, rules),
            )
        )
        identity = stack.enter_context(Identity())
        bad = BadRows(max_bad, rejects)
        for batch in source.batches(source.inputs, bad):
            if missing is not None and _has_column(batch, missing):
                missing = None
            writer.write(_encode(identity.assign(batch), encoding, tokenizer, length, counts))
            on_progress(len(batch))
        if missing is not None and bad.seen:
            raise UsageError(f"--find-column {missing}: no row has a column {missing!r}")
        counts.update({"in": bad.seen, "written": writer.rows, "bad": bad.count})
        assert bad.seen == writer.rows + bad.count, f"rows do not add up: {counts}"
    return counts


def _has_column(batch: Batch, name: str) -> bool:
    if isinstance(batch.rest, pl.DataFrame):
        return name in batch.frame.columns or name in batch.rest.columns
    return name in batch.frame.columns or any(name in row for row in batch.rest)


def _encode(
    batch: Batch, encoding: Encoding, tokenizer: TextTokenizer, length: int, counts: dict[str, int]
) -> Batch:
    lists: list[list[str] | None] = batch.frame["text"].to_list()
    texts = [text for row in lists for text in row or ()]
    ids, cut = tokenizer.encode(texts, length)
    counts["texts"] += len(texts)
    counts["tokens"] += sum(map(len, ids))
    counts["cut"] += cut
    batch = with_column(batch, IDS, by_row(batch, lists, ids), pl.List(pl.Int32()))
    if encoding.label is None and encoding.label_column is None:
        return batch
    wanted: list[Any] = [encoding.label] * len(lists)
    if encoding.label_column is not None:
        wanted = batch.column(encoding.label_column).to_list()
    labels = [
        label if isinstance(label, str) else ""
        for row, label in zip(lists, wanted, strict=True)
        for _ in row or ()
    ]
    places = tokenizer.find(texts, ids, labels)
    counts["found"] += sum(map(bool, places))
    return with_column(batch, POSITIONS, by_row(batch, lists, places), pl.List(pl.List(pl.Int32())))


def learn_vocabulary(
    kind: str,
    size: int,
    source: Source,
    output: str,
    *,
    force: bool = False,
    max_bad: str = "0",
    on_progress: Progress = lambda _: None,
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

"""Rows in, rows without near-duplicates out: one pass for the keys, one for the rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from vlcli import __version__
from vlcli.curation.embeddings import Embeddings, Vectors
from vlcli.curation.ends import Source, Target
from vlcli.curation.keys import ImageKeys, VectorKeys
from vlcli.curation.report import versions
from vlcli.curation.tally import Checksum, Totals
from vlcli.curation.twins import Method, Progress, Twins
from vlcli.errors import InputError, UsageError
from vlcli.images.resolve import ImageReader
from vlcli.records import lineage
from vlcli.records.atomic import check_place, write_json
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.records.identity import Identity
from vlcli.records.reader import repeatable
from vlcli.records.rejects import RejectsWriter

SHOWN = 1000  # pairs that the report lists; all are in the rejects

Keys = Callable[[], ImageKeys | VectorKeys]


@dataclass(frozen=True)
class Picture:
    """What a sheet needs of a row."""

    id: str
    reference: str | None
    data: bytes | None


@dataclass(frozen=True)
class Pair:
    """A row that was dropped, what it gave way to, and what stands between them in words."""

    dropped: Picture
    kept: Picture
    said: str


@dataclass
class Others:
    """The rows of the evaluation sets: all their keys, ids and references are held."""

    keys: Any
    pictures: list[Picture] = field(default_factory=list)


def read_others(source: Source, keys: ImageKeys | VectorKeys, on_progress: Progress) -> Others:
    """The sets that `--against` names. Raises InputError for a row without a key: it would protect nothing."""
    others = Others(None)
    with ImageReader() as reader, Identity() as identity:
        for batch in source.batches(source.inputs, BadRows("0")):
            batch = identity.assign(batch)
            before = keys.rows
            keys.add(batch, reader)
            if keys.causes:
                row, cause = next(iter(keys.causes.items()))
                line = batch.frame["line"][row - before]
                raise InputError(cause, file=batch.file, **{"line" if batch.text_lines else "row": line})
            others.pictures += _pictures(batch, np.arange(len(batch)))
            on_progress("reading evaluation sets", len(batch))
    others.keys = keys.finish()
    return others


def read_embedded(own: Embeddings, sets: Sequence[Embeddings]) -> Others:
    """Evaluation sets that are embedded already. Raises UsageError where something else made their vectors."""
    pictures = []
    for found in sets:
        if found.encoder != own.encoder:
            raise UsageError(
                f"{found.path} and {own.path} are not of one encoder", remedy="embed both with the same"
            )
        for part in found.metadata(["id", "image_path"]):
            for place, (name, reference) in enumerate(zip(part["id"], part["image_path"], strict=True)):
                path = None if reference is None else os.path.join(found.path, reference)
                pictures.append(Picture(name or reference or f"row {place}", path, None))
    return Others(Vectors([part for found in sets for part in found.parts]), pictures)


def _pictures(batch: Batch, rows: np.ndarray) -> list[Picture]:
    frame = batch.frame[rows.tolist()] if len(rows) else batch.frame.head(0)
    return [Picture(*row) for row in frame.select("id", "image", "image_bytes").iter_rows()]


def dedup_pairs(
    method: Method,
    keys: Keys,
    source: Source,
    target: Target,
    *,
    others: Others | None = None,
    against: Sequence[str] = (),
    encoder: dict[str, Any] | None = None,
    max_bad: str = "0",
    sheet: int = 0,
    on_progress: Progress = lambda _, __: None,
) -> tuple[dict[str, Any], list[Pair]]:
    """Writes the rows that stay; returns the report, and `sheet` of the pairs found, from near to far.

    Without `others` the first row of each group of linked rows stays; with them every row goes that is near one of
    theirs. A row without a key is bad. Raises what the readers raise, InputError for more bad rows than `max_bad`.
    """
    target.refuse_clashes()
    if target.report is not None:
        check_place(target.report, force=target.force)
    rules = method.rules() | ({"against": len(others.pictures)} if others is not None else {})
    with ExitStack() as stack:
        rejects = stack.enter_context(RejectsWriter(target.rejects, force=target.force))
        reader = stack.enter_context(ImageReader())
        step = lineage.step("dedup", __version__, rules)
        writer = stack.enter_context(target.open(source.image_root, reader.read, step))
        inputs = repeatable(source.inputs)
        found, collected = _collect(keys(), source, inputs, reader, max_bad, on_progress)
        twins = (
            method.among(found, on_progress)
            if others is None
            else method.against(found, others.keys, on_progress)
        )
        second = _Second(
            method, twins, others, _chosen(twins, method.farther, sheet), rejects, BadRows(max_bad, rejects)
        )
        with Identity() as identity:
            for batch in source.batches(inputs, second.bad, image_bytes=target.embed_images):
                kept = second.judge(identity.assign(batch), collected.causes)
                writer.write(kept)
                on_progress("writing", len(batch))
        second.finish(collected.rows)
    report = {
        "command": "dedup",
        **method.rules(),
        "inputs": list(source.inputs) or ["-"],
        "against": list(against),
        "against_rows": len(others.pictures) if others is not None else 0,
        "encoder": encoder,
        "head": source.head,
        "rows": second.rows.shown(),
        "gave_way_to": len(np.unique(twins.twin[twins.twin >= 0])),
        "pairs": second.listed,
        "checksum": {"of": "kept rows as (image_id, texts), in any order", "value": second.checksum.hex()},
        "versions": versions(),
    }
    if target.report is not None:
        write_json(target.report, report, force=target.force)
    return report, second.shown_pairs()


def _collect(
    keys: ImageKeys | VectorKeys,
    source: Source,
    inputs: Sequence[str],
    reader: ImageReader,
    max_bad: str,
    on_progress: Progress,
) -> tuple[Any, ImageKeys | VectorKeys]:
    """The first pass. Rows that cannot be used are told here already, and counted for good in the second."""
    bad, told = BadRows(max_bad, None), 0
    with Identity() as identity:
        for batch in source.batches(inputs, bad):
            before = keys.rows
            keys.add(identity.assign(batch) if isinstance(keys, VectorKeys) else batch, reader)
            for row in list(keys.causes)[told:]:
                _divert(bad, batch, row - before, keys.causes[row])
            told = len(keys.causes)
            on_progress("reading", len(batch))
    return keys.finish(), keys


def _divert(bad: BadRows, batch: Batch, row: int, cause: str) -> None:
    raw = next(iter(batch.slice(row, 1).rows()))
    bad.add(batch.file, batch.frame["line"][row], cause, raw, text_lines=batch.text_lines)


def _chosen(twins: Twins, farther: int, number: int) -> np.ndarray:
    """At most `number` of the dropped, evenly spread from the nearest pair to the farthest."""
    dropped = np.flatnonzero(twins.twin >= 0)
    order = dropped[np.argsort(farther * twins.measure[dropped], kind="stable")]
    if len(order) <= number:
        return order
    return order[np.linspace(0, len(order) - 1, number).round().astype(int)] if number else order[:0]


class _Second:
    """The second pass: rows in order, each with what was found for its key."""

    def __init__(
        self,
        method: Method,
        twins: Twins,
        others: Others | None,
        chosen: np.ndarray,
        rejects: RejectsWriter,
        bad: BadRows,
    ) -> None:
        self.method, self.twins, self.others, self.rejects, self.bad = method, twins, others, rejects, bad
        self.rows, self.checksum = Totals(), Checksum()
        self.listed: list[dict[str, Any]] = []
        self._chosen = chosen
        self._for_sheet = set(chosen.tolist())
        # of those that others give way to: a picture where the sheet wants it, else the id alone
        self._firsts: dict[int, Picture] = {}
        self._is_first = np.zeros(len(twins.twin), bool)
        if others is None:
            self._is_first[twins.twin[twins.twin >= 0]] = True
        self._sheet_firsts = set(twins.twin[chosen].tolist())
        self._sheet: dict[int, Pair] = {}
        self._row = self._key = self._diverted = 0

    def judge(self, batch: Batch, causes: dict[int, str]) -> Batch:
        """The rows of the batch that stay."""
        has_key = np.array([self._row + i not in causes for i in range(len(batch))], bool)
        for i in np.flatnonzero(~has_key).tolist():
            _divert(self.bad, batch, i, causes[self._row + i])
        self._diverted += int((~has_key).sum())
        self._row += len(batch)
        keys = self._key + np.cumsum(has_key) - 1  # (n,) the key of each row that has one
        self._key += int(has_key.sum())
        if self._key > len(self.twins.twin):
            raise InputError("the file has changed since it was read first", file=batch.file)
        twin = np.full(len(batch), -1, np.int64)
        twin[has_key] = self.twins.twin[keys[has_key]]
        if self.others is None and has_key.any():
            firsts = np.flatnonzero(has_key)[self._is_first[keys[has_key]]]
            for key, picture in zip(keys[firsts].tolist(), _pictures(batch, firsts), strict=True):
                shown = key in self._sheet_firsts
                self._firsts[key] = picture if shown else Picture(picture.id, None, None)
        dropped = twin >= 0
        if dropped.any():
            self._reject(batch, np.flatnonzero(dropped), keys[dropped], twin[dropped])
        stay = has_key & ~dropped
        kept = batch.take(pl.Series(stay))
        self.rows.given += len(batch)
        self.rows.kept += len(kept)
        self.rows.dropped += int(dropped.sum())
        self.rows.bad += int((~has_key).sum())
        self.checksum.add(kept.frame["image_id"], kept.frame["text"])
        return kept

    def _reject(self, batch: Batch, rows: np.ndarray, keys: np.ndarray, twins: np.ndarray) -> None:
        reasons, more = [], []
        pictures = _pictures(batch, rows)
        for picture, key, twin in zip(pictures, keys.tolist(), twins.tolist(), strict=True):
            other = self._firsts[twin] if self.others is None else self.others.pictures[twin]
            measure = float(self.twins.measure[key])
            said = self.method.said(measure)
            through = ", linked by others between" if self.method.beyond(measure) else ""
            reasons.append(f"{said} {other.id}{through}")
            more.append({"twin": other.id, "measure": measure})
            if len(self.listed) < SHOWN:
                self.listed.append({"id": picture.id, "twin": other.id, "measure": measure})
            if key in self._for_sheet:
                self._sheet[key] = Pair(picture, other, f"{said}{through}")
        mask = np.zeros(len(batch), bool)
        mask[rows] = True
        self.rejects.write(batch.take(pl.Series(mask)), [self.method.name] * len(rows), reasons, more)

    def finish(self, expected: int) -> None:
        if self._row != expected or self._key != len(self.twins.twin):
            raise InputError(
                f"{expected:,} rows were read first and {self._row:,} now: the input has changed"
            )
        unread = self.bad.count - self._diverted  # rows that never made it into a batch
        self.rows.given += unread
        self.rows.bad += unread
        assert self.rows.given == self.bad.seen, f"{self.rows.given} rows accounted for, {self.bad.seen} read"

    def shown_pairs(self) -> list[Pair]:
        return [self._sheet[key] for key in self._chosen.tolist()]


def summary(report: dict[str, Any]) -> str:
    """`in 10, kept 7, dropped 3, bad 0; by phash 3 gave way to 2`."""
    rows = ", ".join(f"{name} {count:,}" for name, count in report["rows"].items())
    dropped = report["rows"]["dropped"]
    return f"{rows}; by {report['method']} {dropped:,} gave way to {report['gave_way_to']:,}"

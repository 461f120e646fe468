"""Parallel text as a trainer wants it: pairs of all sources, each once, in a mixture (AltCLIP §4.1).

Equal pairs of each language, and in it so much of each source: 5 parts of OPUS to 10 of LAION and 3 of CC3M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlcli.curation.amount import apportion
from vlcli.curation.chance import draws
from vlcli.curation.mixture import parse_weights
from vlcli.curation.parallel_text import NINE, Pair, ParallelText
from vlcli.errors import UsageError
from vlcli.records.atomic import atomic_directory
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch

SCHEMA = pa.schema([(name, pa.string()) for name in ("en", "text", "lang", "source")])
GROUP = 65_536  # rows held before they are written

Read = Callable[[BadRows], Iterable[Batch]]  # all rows, anew at each call


@dataclass(frozen=True)
class ParallelMixture:
    """What is wanted: `shares` of the sources in each language (none: all that there is), and the `amount` of each
    language (None: as many as can be; without shares and amount nothing is left out)."""

    languages: tuple[str, ...] = NINE
    identity: bool = True
    shares: Mapping[str, Fraction] = field(default_factory=dict)
    amount: int | None = None
    seed: int = 0

    @property
    def chooses(self) -> bool:
        return bool(self.shares) or self.amount is not None


def write_mixture(
    mixture: ParallelMixture,
    read: Read,
    out: Path,
    *,
    per_file: int,
    bad: BadRows,
    force: bool = False,
) -> dict[str, Any]:
    """Write `out`/00000.parquet and so on, columns en, text, lang, source; the directory appears when it is whole.

    The input is read twice where pairs are chosen, and `bad` counts the last time. Returns the report. Raises
    UsageError where a language has too few pairs of a source.
    """
    kept: np.ndarray | None = None
    if mixture.chooses:
        first = BadRows(bad.max_bad)
        text = ParallelText(mixture.languages, identity=mixture.identity, bad=first)
        kept = _chosen(mixture, (pair for pair, *_ in text.pairs(read(first))))
    text = ParallelText(mixture.languages, identity=mixture.identity, bad=bad)
    taken: dict[tuple[str, str], int] = {}
    with atomic_directory(out, force=force) as folder:
        writer = _Files(folder, per_file)
        for number, (pair, *_) in enumerate(text.pairs(read(bad))):
            if kept is None or kept[number]:
                writer.add(pair)
                taken[pair.lang, pair.source] = taken.get((pair.lang, pair.source), 0) + 1
        writer.close()
    return text.report() | {
        "written": sum(taken.values()),
        "files": writer.files,
        "taken": _by_language(taken),
    }


def _by_language(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (language, source), count in sorted(counts.items()):
        found.setdefault(language, {})[source] = count
    return found


def _chosen(mixture: ParallelMixture, pairs: Iterator[Pair]) -> np.ndarray:
    """(pairs,) which stay: of each language and source those with the lowest draws, which are of the pair alone."""
    strata: dict[tuple[str, str], int] = {}
    of_pairs, drawn = [np.empty(0, np.int32)], [np.empty(0, np.uint64)]
    held: list[Pair] = []

    def put() -> None:
        numbers = [strata.setdefault((pair.lang, pair.source), len(strata)) for pair in held]
        of_pairs.append(np.array(numbers, np.int32))
        drawn.append(draws("parallel", mixture.seed, (f"{pair.key:x}" for pair in held)))
        held.clear()

    for pair in pairs:
        held.append(pair)
        if len(held) == GROUP:
            put()
    put()
    numbers, draw = np.concatenate(of_pairs), np.concatenate(drawn)
    sizes = {name: int((numbers == number).sum()) for name, number in strata.items()}
    kept = np.zeros(len(numbers), bool)
    if not sizes:
        return kept
    for name, wanted in _wanted(mixture, sizes).items():
        members = np.flatnonzero(numbers == strata[name])
        kept[members[np.argsort(draw[members], kind="stable")[:wanted]]] = True
    return kept


def _wanted(mixture: ParallelMixture, sizes: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """How many of each language and source."""
    languages = [language for language in mixture.languages if any(lang == language for lang, _ in sizes)]
    shares = {language: _shares(mixture, language, sizes) for language in languages}
    most, scarce = min(
        (int(sizes.get((language, source), 0) * sum(of.values()) / share), (language, source))
        for language, of in shares.items()
        for source, share in of.items()
    )
    amount = most if mixture.amount is None else mixture.amount
    if amount > most or not amount:
        language, source = scarce
        remedy = f"--sample {most} can be had" if most else ""
        raise UsageError(
            f"only {sizes.get(scarce, 0):,} pairs in {language!r} are of source {source!r}, too few for"
            f" {max(amount, 1):,} of each language",
            remedy=remedy,
        )
    found: dict[tuple[str, str], int] = {}
    for language, of in shares.items():
        parts, _ = apportion(amount, list(of.values()))
        found |= {(language, source): part for source, part in zip(of, parts, strict=True)}
    return found


def _shares(
    mixture: ParallelMixture, language: str, sizes: Mapping[tuple[str, str], int]
) -> Mapping[str, Fraction]:
    """Those that are asked for, else in proportion to what there is."""
    if mixture.shares:
        return mixture.shares
    return {source: Fraction(count) for (lang, source), count in sizes.items() if lang == language}


class _Files:
    """Parquet files of `per_file` pairs each, in the order in which they come."""

    def __init__(self, folder: Path, per_file: int) -> None:
        self._folder, self._per_file = folder, per_file
        self._held: list[Pair] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0  # of the open file
        self.files = 0

    def add(self, pair: Pair) -> None:
        self._held.append(pair)
        if len(self._held) == min(GROUP, self._per_file - self._rows):
            self._put()

    def _put(self) -> None:
        if self._writer is None:
            path = self._folder / f"{self.files:05}.parquet"
            self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True)
            self.files += 1
        columns = zip(
            *((pair.teacher, pair.student, pair.lang, pair.source) for pair in self._held), strict=True
        )
        self._writer.write_table(pa.table([list(column) for column in columns], schema=SCHEMA))
        self._rows += len(self._held)
        self._held.clear()
        if self._rows == self._per_file:
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._rows = None, 0

    def close(self) -> None:
        """After the last pair. An input without any gives one empty file."""
        if self._held:
            self._put()
        if not self.files:
            pq.write_table(SCHEMA.empty_table(), self._folder / "00000.parquet")
            self.files = 1
        self._finish()


def parse_shares(value: str) -> dict[str, Fraction]:
    """`opus=5,laion=10` of `--mix`."""
    return dict(parse_weights(value, "--mix", value))

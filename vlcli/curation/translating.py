"""Back-translations as candidates [F §3.2] and translations as a column, of the rows that `filter` keeps.

Both come after the rules: what is translated is what was kept, as the rules left it. A masked name stays masked: the
text is cut at its tokens, and only what stands between them is translated.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vlcli.curation.fields import Fields
from vlcli.curation.text_column import by_row, with_column
from vlcli.errors import InputError, UsageError
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.text.line_command import TranslationFailed
from vlcli.text.seq2seq import Decoding
from vlcli.text.translation_cache import TranslationCache
from vlcli.text.translators import Translators, TranslatorSpec, is_language
from vlcli.text.wordpiece import NAME_TOKEN

ROWS = 2048  # of one call of a translator: longest texts go together, and progress is seen
COLUMN = "text_{target}"
_AROUND_NAMES = re.compile(f"({re.escape(NAME_TOKEN)})")

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Translation:
    """What is asked of the translator. `source` None: each row's column `lang` says it."""

    translator: TranslatorSpec
    pivots: tuple[str, ...] = ()  # languages through which a text becomes a candidate
    targets: tuple[str, ...] = ()  # languages that a column is written in
    column: str = COLUMN
    source: str | None = None
    source_from: str = "default"  # what said so, for the plan
    cache: Path | None = None
    decoding: Decoding = field(default_factory=Decoding)

    def check(self) -> None:
        """Raises UsageError for what cannot be, before a row is read."""
        names = [self.column_of(target) for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    f"--translate-to {self.column!r} names one column for {len(names)} languages",
                    remedy="put {target} into it",
                )
            if name in COLUMNS or name in BOOKKEEPING:
                raise UsageError(
                    f"--translate-to {name}: not a further column",
                    remedy=f"the next command can rename it: --map {name}=text_{self.targets[0]}",
                )
        for source, target in self.pairs():
            self.translator.of(source, target)
        translators = Translators(self.translator, self.decoding)
        for source, target in self.pairs():
            translators.check(source, target)

    def column_of(self, target: str) -> str:
        return self.column.replace("{target}", target)

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs that are known before the rows are, in the order in which they are asked for."""
        if (source := self.source) is None:
            return []
        hops = [hop for pivot in self.pivots for hop in ((source, pivot), (pivot, source))]
        return [
            pair for pair in [*hops, *((source, target) for target in self.targets)] if pair[0] != pair[1]
        ]

    def table(self) -> list[dict[str, str]]:
        """For the plan."""
        lines = [("augment-text", ",".join(self.pivots)), ("translate", ",".join(self.targets))]
        lines = [(name, value) for name, value in lines if value]
        lines.append(("translator", self.translator.shown()))
        if self.targets:
            lines.append(("translate-to", ",".join(map(self.column_of, self.targets))))
        if self.cache is not None:
            lines.append(("translation-cache", str(self.cache)))
        source = {"rule": "source-lang", "value": self.source or "the column lang", "from": self.source_from}
        return [source, *({"rule": name, "value": value, "from": f"--{name}"} for name, value in lines)]

    def fingerprint(self) -> dict[str, str]:
        """As lineage records it, without paths: what translates each pair, or all of it where only rows say which."""
        translators = Translators(self.translator, self.decoding)
        prints = {f"{s}-{t}": f"sha256:{translators.fingerprint(s, t)}" for s, t in self.pairs()}
        if self.source is None:
            prints["translator"] = f"sha256:{translators.fingerprint_of_all()}"
        said = {"augment-text": ",".join(self.pivots), "translate": ",".join(self.targets)}
        said |= {"source-lang": self.source or "", "translate-to": self.column if self.targets else ""}
        return {name: value for name, value in said.items() if value} | prints


class Translating:
    """A context manager that adds to batch after batch what a `Translation` asks for, and counts."""

    def __init__(self, translation: Translation) -> None:
        self._asked = translation
        self._fields = Fields()  # what a loader draws from: `text`, or ZERO's three where it is absent
        self._stack = ExitStack()
        self._translators = Translators(translation.translator, translation.decoding)
        self._cache: TranslationCache | None = None
        self._pairs: dict[str, Counter[str]] = {}
        self._candidates: Counter[str] = Counter()
        self._columns: Counter[str] = Counter()

    def __enter__(self) -> Translating:
        with ExitStack() as stack:
            stack.enter_context(self._translators)
            if self._asked.cache is not None:
                self._cache = stack.enter_context(TranslationCache(self._asked.cache))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def parts(self, batch: Batch, on_progress: Progress = lambda _, __: None) -> Iterator[Batch]:
        """The rows of a batch, some at a time, with their candidates and columns."""
        for start in range(0, len(batch), ROWS):
            part = batch.slice(start, ROWS)
            if self._asked.pivots:
                part = self._augment(part)
            for target in self._asked.targets:
                part = self._translate_into(part, target)
            on_progress("translating", len(part))
            yield part

    def finish(self) -> None:
        """After the last row. Raises where a translator does not end well."""
        with self._in_step():
            self._translators.finish()

    def report(self) -> dict[str, Any]:
        """What was done, in texts; of a pair, each different text of a batch once."""
        report: dict[str, Any] = {"pairs": {pair: dict(count) for pair, count in self._pairs.items()}}
        if self._asked.pivots:
            names = ("back-translations", "added", "equal to the text", "there already", "empty")
            report["candidates"] = {name: self._candidates[name] for name in names}
        if self._asked.targets:
            report["columns"] = {name: self._columns[name] for name in ("translations", "given", "empty")}
        report["cut"] = self._translators.cut
        return report

    def _augment(self, batch: Batch) -> Batch:
        """Candidates behind those that are there: of each text, through each pivot."""
        lines = self._fields.lines(batch, np.ones(len(batch), np.bool_)).filter("is_text")
        rows: list[int] = lines["row"].to_list()
        texts: list[str] = lines["text"].to_list()
        languages = self._languages(batch, rows)
        backs: list[list[str]] = [[] for _ in texts]
        for source in dict.fromkeys(languages):
            places = [i for i, language in enumerate(languages) if language == source]
            for pivot in self._asked.pivots:
                if pivot == source:
                    continue
                there = self._through([texts[i] for i in places], source, pivot)
                for i, back in zip(places, self._through(there, pivot, source), strict=True):
                    backs[i].append(back)
        of_row: dict[int, tuple[list[str], list[str]]] = {}
        for row, text, of_text in zip(rows, texts, backs, strict=True):
            own, found = of_row.setdefault(row, ([], []))
            own.append(text)
            found += of_text
        candidates: list[list[str] | None] = batch.frame["text_candidates"].to_list()
        for row, (own, found) in of_row.items():
            if added := self._new(own, candidates[row] or [], found):
                candidates[row] = [*(candidates[row] or []), *added]
        return batch.with_columns(pl.Series("text_candidates", candidates, COLUMNS["text_candidates"]))

    def _new(self, texts: Sequence[str], present: Sequence[str], found: Sequence[str]) -> list[str]:
        """The back-translations of a row that say something new."""
        own, there = {_plain(text) for text in texts}, {_plain(text) for text in present}
        added = []
        for back in found:
            plain = _plain(back)
            self._candidates["back-translations"] += 1
            if plain in own:
                self._candidates["equal to the text"] += 1
            elif not _has_letters(plain):
                self._candidates["empty"] += 1
            elif plain in there:
                self._candidates["there already"] += 1
            else:
                there.add(plain)
                added.append(back.strip())
                self._candidates["added"] += 1
        return added

    def _translate_into(self, batch: Batch, target: str) -> Batch:
        """The column of a language; a row that has it keeps what it has."""
        name = self._asked.column_of(target)
        given = _cells(batch, name)
        lists: list[list[str] | None] = batch.frame["text"].to_list()
        lacking = [texts if cell is None else None for texts, cell in zip(lists, given, strict=True)]
        rows = [row for row, texts in enumerate(lacking) for _ in texts or ()]
        texts = [text for row in lacking for text in row or ()]
        languages = self._languages(batch, rows)
        found = [""] * len(texts)
        for source in dict.fromkeys(languages):
            places = [i for i, language in enumerate(languages) if language == source]
            for i, said in zip(
                places, self._through([texts[i] for i in places], source, target), strict=True
            ):
                found[i] = said.strip()
        self._columns["translations"] += len(found)
        self._columns["empty"] += found.count("")
        self._columns["given"] += sum(cell is not None for cell in given)
        new = by_row(batch, lacking, found)
        cells = [cell if cell is not None else said for cell, said in zip(given, new, strict=True)]
        return with_column(batch, name, cells, pl.String())

    def _languages(self, batch: Batch, rows: Sequence[int]) -> list[str]:
        """The language of each text; `rows` are those the texts stand in."""
        if self._asked.source is not None:
            return [self._asked.source] * len(rows)
        column: list[Any] = batch.column("lang").to_list()
        for row in dict.fromkeys(rows):
            if not is_language(column[row]):
                said = "no lang" if column[row] is None else f"lang {column[row]!r} is no code of a language"
                place = {"line" if batch.text_lines else "row": batch.frame["line"][row]}
                raise InputError(
                    said, file=batch.file, remedy="--source-lang says what all texts are in", **place
                )
        return [column[row] for row in rows]

    def _through(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The texts in another language: what has no letter, and every masked name, as it is."""
        if source == target:
            return list(texts)
        pieces = {text: [_Piece.of(p) for p in _AROUND_NAMES.split(text)] for text in dict.fromkeys(texts)}
        wanted = dict.fromkeys(p.core for cut in pieces.values() for p in cut if p.says_something)
        known = self._translations(list(wanted), source, target)
        said = {
            text: "".join(p.before + known.get(p.core, p.core) + p.after for p in cut)
            for text, cut in pieces.items()
        }
        return [said[text] for text in texts]

    def _translations(self, texts: list[str], source: str, target: str) -> dict[str, str]:
        """Of different texts: from the cache, else from the translator."""
        count = self._pairs.setdefault(f"{source}-{target}", Counter(texts=0, cached=0, translated=0))
        found: dict[str, str] = {}
        if self._cache is not None:
            name = self._translators.fingerprint(source, target)
            found = self._cache.get(name, source, target, texts)
        count["cached"] += len(found)
        missing = [text for text in texts if text not in found]
        count["texts"] += len(texts)
        count["translated"] += len(missing)
        if missing:
            with self._in_step():
                said = self._translators.translate(missing, source, target)
            new = dict(zip(missing, said, strict=True))
            if self._cache is not None:
                self._cache.put(name, source, target, new)
            found |= new
        return found

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """What a command wrote that then lost count may belong to other texts: it does not stay in the cache."""
        try:
            yield
        except TranslationFailed as error:
            if error.out_of_step and self._cache is not None:
                self._cache.forget_this_run()
            raise


@dataclass(frozen=True)
class _Piece:
    """What stands between two masked names, or such a name: space, what is translated, space."""

    before: str
    core: str
    after: str
    says_something: bool

    @classmethod
    def of(cls, text: str) -> _Piece:
        core = text.strip()
        start = text.find(core)
        return cls(text[:start], core, text[start + len(core) :], text != NAME_TOKEN and _has_letters(core))


def _has_letters(text: str) -> bool:
    """Letters or digits: without any there is nothing to translate."""
    return any(character.isalnum() for character in text)


def _plain(text: str) -> str:
    """As texts are compared everywhere: NFC, no space around."""
    return unicodedata.normalize("NFC", text).strip()


def _cells(batch: Batch, name: str) -> list[Any]:
    """What the rows have in a column of their own; None where nothing. InputError where texts have no place in it."""
    if not isinstance(batch.rest, pl.DataFrame):
        return [row.get(name) for row in batch.rest]
    if name not in batch.rest.columns:
        return [None] * len(batch)
    column = batch.rest[name]
    is_scalar = batch.frame["text_is_scalar"].fill_null(False).all()
    if column.dtype not in (pl.Null, pl.String if is_scalar else pl.List(pl.String)):
        raise InputError(f"its column {name} is {column.dtype}, not shaped as text is", file=batch.file)
    return column.to_list()

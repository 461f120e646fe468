"""Parallel text: pairs of sentences from rows, one side for the teacher, the other for the student (AltCLIP §3.1).

Two forms of rows are read. A table has a column a language, `zh` or `text_zh` (as `filter --translate` writes it), and
English beside it; a row of pairs has `text` in the language `lang`, and English. English is `en`, else `text_en`, else
the `text` of a row without another language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlcli.errors import InputError
from vlcli.records.bad import BadRows
from vlcli.records.batch import Batch
from vlcli.text.translators import is_language

ENGLISH = "en"
NINE = ("en", "zh", "es", "fr", "ru", "ar", "ja", "ko", "it")  # AltCLIP_M9's [X §4.1]


class Pair(NamedTuple):
    """`teacher` is English, `student` the same in `lang`; of an identity pair the two are equal."""

    teacher: str
    student: str
    lang: str
    source: str

    @property
    def key(self) -> int:
        """64 bits of (lang, teacher, student): a pair that comes again has it too."""
        text = "\0".join((self.lang, self.teacher, self.student)).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class ParallelText:
    """`pairs(batches)` of the wanted `languages`, and what was met on the way.

    With `identity` every row gives its English sentence with itself as well: without these pairs a student forgets
    English (AltCLIP Table 7). A pair that came before is left out. An empty cell of a table says that there is no
    such translation: it is skipped, and counted. Bad are a row without English, a pair of columns of which one side is
    empty, and a `lang` that is not wanted: they go to `bad`, or, without it, raise InputError.
    """

    def __init__(
        self, languages: Sequence[str] = NINE, *, identity: bool = True, bad: BadRows | None = None
    ) -> None:
        self.languages, self.identity, self.bad = tuple(languages), identity, bad
        self._others = [language for language in languages if language != ENGLISH]
        self._seen = _Keys()
        self.rows = 0
        self.found: Counter[tuple[str, str]] = Counter()  # (language, source) → pairs
        self.empty: Counter[str] = Counter()  # language → cells of tables without a translation
        self.repeated = 0

    def pairs(self, batches: Iterable[Batch]) -> Iterator[tuple[Pair, str, int]]:
        """Each new pair and where it stands: `file:` and its line, or `file#` and its row."""
        for batch in batches:
            lines = batch.frame["line"]
            mark = ":" if batch.text_lines else "#"
            for line, row in zip(lines.to_list(), batch.rows(), strict=True):
                self.rows += 1
                try:
                    pairs = list(self._of(row, str(row.get("source") or Path(batch.file).stem)))
                except ValueError as error:
                    self._refuse(str(error), batch, line, row)
                    continue
                for pair in pairs:
                    if not self._seen.add(pair.key):
                        self.repeated += 1
                        continue
                    self.found[pair.lang, pair.source] += 1
                    yield pair, batch.file + mark, line
        if self.bad is not None:
            self.bad.judge()

    def report(self) -> dict[str, Any]:
        """Counts by language and source, as JSON has them."""
        by_language: dict[str, dict[str, int]] = {language: {} for language in self.languages}
        for (language, source), count in sorted(self.found.items()):
            by_language.setdefault(language, {})[source] = count
        return {
            "rows": self.rows,
            "pairs": sum(self.found.values()),
            "repeated": self.repeated,
            "empty": dict(self.empty),
            "by_language": by_language,
        }

    def _of(self, row: Mapping[str, Any], source: str) -> Iterator[Pair]:
        """ValueError, which says why, for a row that is bad."""
        lang = row.get("lang")
        if lang is not None and (not is_language(lang) or lang not in self.languages):
            raise ValueError(f"the language {lang!r} is not one of {', '.join(self.languages)}")
        english = _cell(row, ENGLISH)
        if english is None and lang in (None, ENGLISH):
            english = _string(row.get("text"), "text")
        if not english:
            raise ValueError("no English sentence: it is what the teacher reads")
        if self.identity and ENGLISH in self.languages:
            yield Pair(english, english, ENGLISH, source)
        if lang == ENGLISH:  # a paraphrase, where it is another sentence
            text = _string(row.get("text"), "text")
            if text and text != english:
                yield Pair(english, text, ENGLISH, source)
        elif lang is not None:
            text = _string(row.get("text"), "text")
            if not text:
                raise ValueError(f"the {lang} side is empty")
            yield Pair(english, text, str(lang), source)
            return
        columns = [language for language in self._others if language in row or f"text_{language}" in row]
        for language in columns:
            said = _cell(row, language)
            if said:
                yield Pair(english, said, language, source)
            elif len(columns) == 1:
                raise ValueError(f"the {language} side is empty")
            else:
                self.empty[language] += 1

    def _refuse(self, cause: str, batch: Batch, line: int, row: dict[str, Any]) -> None:
        if self.bad is not None:
            self.bad.add(batch.file, line, cause, row, text_lines=batch.text_lines)
            return
        place: dict[str, Any] = {"line": line} if batch.text_lines else {"row": line}
        raise InputError(cause, file=batch.file, **place)


def _cell(row: Mapping[str, Any], language: str) -> str | None:
    """What a row has in a language; None where it has no column of it."""
    name = language if language in row else f"text_{language}"
    return _string(row[name], name) if name in row else None


def _string(value: Any, column: str) -> str:
    if isinstance(value, list) and len(value) == 1:  # what `filter --translate` makes of a list of one text
        value = value[0]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{column} is {type(value).__name__}, not one sentence")
    return value.strip()


class _Keys:
    """A set of 64-bit numbers: sorted runs of 8 bytes a number, and a small Python set of the newest."""

    def __init__(self, newest: int = 1 << 18) -> None:
        self._limit, self._newest = newest, set[int]()
        self._runs: list[np.ndarray] = []

    def add(self, key: int) -> bool:
        """False where it is there already."""
        if key in self._newest or any(self._has(run, key) for run in self._runs):
            return False
        self._newest.add(key)
        if len(self._newest) >= self._limit:
            run = np.sort(np.fromiter(self._newest, np.uint64, len(self._newest)))
            self._newest.clear()
            # each run at least twice as long as the next, so that there are few to look into
            while self._runs and len(self._runs[-1]) < 2 * len(run):
                run = np.sort(np.concatenate([self._runs.pop(), run]))
            self._runs.append(run)
        return True

    @staticmethod
    def _has(run: np.ndarray, key: int) -> bool:
        place = int(np.searchsorted(run, np.uint64(key)))
        return place < len(run) and int(run[place]) == key

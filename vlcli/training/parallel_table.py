"""The pairs of parallel text as a trainer reads them: tokens on disk, and which sentence of the teacher's is whose.

A table is made once for its inputs and tokenizer and kept in the cache: what is in memory of a pair are a few mapped
numbers, whatever its sentences are long.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import orjson

from vlcli.curation.parallel_text import ENGLISH, Pair, ParallelText
from vlcli.errors import UsageError
from vlcli.records.atomic import atomic_directory
from vlcli.records.reader import read
from vlcli.records.sources import sources
from vlcli.text.model_tokenizers import ModelTokenizer
from vlcli.training.teacher import key_of, tokenizer_hash

VERSION = 1  # of the files
CHUNK = 4096
ABOUT = "table.json"

T = TypeVar("T")


class ParallelTable:
    """Pairs of the folder `folder`, which `parallel_table` has made.

    Of each pair (n,): `starts` and `lengths` of its tokens, `strata`, a number of `names`, and `teachers`, the number
    of its English sentence, whose keys are `teacher_keys`.
    """

    def __init__(self, folder: Path, owner: Any = None) -> None:
        self.folder, self._owner = folder, owner  # the owner of a temporary folder
        self.about: dict[str, Any] = orjson.loads((folder / ABOUT).read_bytes())
        self.names: list[tuple[str, str]] = [tuple(name) for name in self.about["names"]]
        self.starts, self.lengths = self._array("starts", np.int64), self._array("lengths", np.int32)
        self.strata, self.teachers = self._array("strata", np.int32), self._array("teachers", np.int64)
        self.teacher_keys = self._array("teacher_keys", np.dtype("S16"))
        self._tokens, self._texts = self._array("tokens", np.int32), self._array("texts", np.uint8)
        self._text_ends, self._lines = self._array("text_ends", np.int64), self._array("lines", np.int64)

    def _array(self, name: str, dtype: Any) -> np.ndarray:
        file = self.folder / f"{name}.bin"
        return np.memmap(file, dtype=dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def split_hash(self) -> str:
        """sha256 over all pairs in order."""
        return self.about["split_hash"]

    def texts(self, teachers: Sequence[int]) -> list[str]:
        """English sentences by their numbers."""
        found = []
        for number in teachers:
            start = int(self._text_ends[number - 1]) if number else 0
            found.append(
                bytes(self._texts[start : int(self._text_ends[number])]).decode("utf-8", "surrogatepass")
            )
        return found

    def tokens(self, rows: np.ndarray, padding: int) -> tuple[np.ndarray, np.ndarray]:
        """ids (m, n) int64 and mask (m, n) of pairs, n their longest."""
        lengths = self.lengths[rows]
        mask = np.arange(int(lengths.max())) < lengths[:, None]
        ids = np.full(mask.shape, padding, dtype=np.int64)
        for row, start, length in zip(ids, self.starts[rows].tolist(), lengths.tolist(), strict=True):
            row[:length] = self._tokens[start : start + length]
        return ids, mask

    def places(self, rows: Iterable[int]) -> list[str]:
        """Where pairs stand: `file:line lang`."""
        files = self.about["files"]
        found = []
        for row in rows:
            file, line = divmod(int(self._lines[row]), 1 << 44)
            found.append(f"{files[file]}{line} {self.names[self.strata[row]][0]}")
        return found


def parallel_table(
    paths: Sequence[str],
    tokenizer: ModelTokenizer,
    *,
    languages: Sequence[str],
    identity: bool,
    context: int,
    cache: Path | None,
    head: int | None = None,
    renames: dict[str, str] | None = None,
) -> ParallelTable:
    """The table of `paths`, made anew only where `cache` has none of these files as they are; without a cache it is
    temporary.

    Raises InputError for a bad row (curation/parallel_text.py), UsageError for a language of which there is none.
    """
    asked: list[Any] = [list(languages), identity, context, head, renames or {}]
    folder = None
    if cache is not None:
        stamp = _stamp(paths, [VERSION, tokenizer_hash(tokenizer), *asked])
        folder = None if stamp is None else cache / stamp
        if folder is not None and (folder / ABOUT).is_file():
            return ParallelTable(folder)
    text = ParallelText(languages, identity=identity)
    pairs = text.pairs(read(paths, head=head, renames=renames))
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="vlcli-parallel-")
        _write(Path(temporary.name), pairs, text, tokenizer, context)
        return ParallelTable(Path(temporary.name), temporary)
    with atomic_directory(folder, force=True) as new:
        _write(new, pairs, text, tokenizer, context)
    return ParallelTable(folder)


def _stamp(paths: Sequence[str], asked: list[Any]) -> str | None:
    """A name for a table of these files as they are; None for a pipe."""
    files = []
    for source in sources(paths):
        path = Path(source.name)
        if not path.is_file():
            return None
        state = path.stat()
        files.append([str(path.resolve()), state.st_size, state.st_mtime_ns])
    text = json.dumps([files, asked], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write(
    folder: Path,
    pairs: Iterator[tuple[Pair, str, int]],
    text: ParallelText,
    tokenizer: ModelTokenizer,
    context: int,
) -> None:
    names: dict[tuple[str, str], int] = {}
    files: dict[str, int] = {}
    digest = hashlib.sha256()
    columns = (
        "starts",
        "lengths",
        "strata",
        "teachers",
        "lines",
        "tokens",
        "teacher_keys",
        "texts",
        "text_ends",
    )
    start, teachers, end, last = 0, -1, 0, None
    with ExitStack() as stack:
        out: dict[str, BinaryIO] = {
            name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in columns
        }
        for part in _chunks(pairs, CHUNK):
            ids, mask = tokenizer.encode([pair.student for pair, *_ in part], length=context)
            lengths = mask.sum(1)
            of_pairs: list[int] = []
            for pair, file, line in part:
                digest.update(orjson.dumps(list(pair)) + b"\n")
                if pair.teacher != last:
                    teachers, last = teachers + 1, pair.teacher
                    raw = last.encode("utf-8", "surrogatepass")
                    end += len(raw)
                    out["texts"].write(raw)
                    out["text_ends"].write(np.int64(end).tobytes())
                    out["teacher_keys"].write(key_of(last))
                of_pairs.append(teachers)
                number = files.setdefault(file, len(files))
                out["lines"].write(np.int64((number << 44) + line).tobytes())
            strata = [names.setdefault((pair.lang, pair.source), len(names)) for pair, *_ in part]
            out["starts"].write((start + np.cumsum(lengths) - lengths).astype(np.int64).tobytes())
            out["lengths"].write(lengths.astype(np.int32).tobytes())
            out["strata"].write(np.array(strata, np.int32).tobytes())
            out["teachers"].write(np.array(of_pairs, np.int64).tobytes())
            out["tokens"].write(ids[mask].astype(np.int32).tobytes())
            start += int(lengths.sum())
    for language in text.languages:
        if not any(lang == language for lang, _ in names) and (text.identity or language != ENGLISH):
            raise UsageError(
                f"no row has a sentence in {language!r}",
                remedy="--set distill.languages=[…] says which there are",
            )
    about = {**text.report(), "split_hash": digest.hexdigest(), "tokens": start}
    about |= {"names": list(names), "files": list(files)}
    (folder / ABOUT).write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))


def _chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while part := list(islice(items, size)):
        yield part

"""Translations on disk, so that what was translated once is not translated again, by this run or by a later one.

An SQLite file: a row for each text, keyed by what translates (its fingerprint), the pair of languages and the text.
Several processes of one machine may share it.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.records.atomic import check_folder

_MARK = 0x766C7472  # "vltr", SQLite's application_id
_VERSION = 1
_PATIENCE = 60.0  # seconds that another process may hold the file
_AT_A_TIME = 500  # variables of one statement
_MEMORY = 64 << 10  # KiB of pages


class TranslationCache:
    """A context manager. `path` is made where there is none."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where no file can be, InputError for a file that is something else."""
        if path.is_dir():
            raise UsageError(f"--translation-cache {path} is a directory")
        check_folder(path.parent)
        self.path = path
        self._run = secrets.randbits(63)
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> TranslationCache:
        with self._named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # transactions are said where they begin; `_put` runs in one
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            self._connection = connection
            connection.execute(f"PRAGMA cache_size = -{_MEMORY}")
            connection.execute("BEGIN IMMEDIATE")
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables and not mark:
                connection.execute(f"PRAGMA application_id = {_MARK}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                connection.execute(
                    "CREATE TABLE translations (key BLOB PRIMARY KEY, translation TEXT NOT NULL, run INTEGER)"
                )
            elif (mark, connection.execute("PRAGMA user_version").fetchone()[0]) != (_MARK, _VERSION):
                raise InputError("not a translation cache of this version", file=str(self.path))
            connection.execute("COMMIT")
        return self

    def get(self, translator: str, source: str, target: str, texts: Sequence[str]) -> dict[str, str]:
        """Of those texts that are known, the translations."""
        keys = dict(zip(_keys(translator, source, target, texts), texts, strict=True))
        found: dict[str, str] = {}
        with self._named():
            for part in _parts(list(keys)):
                marks = ",".join("?" * len(part))
                sql = f"SELECT key, translation FROM translations WHERE key IN ({marks})"
                found.update((keys[key], said) for key, said in self._open.execute(sql, part))
        return found

    def put(self, translator: str, source: str, target: str, translations: Mapping[str, str]) -> None:
        """Keep them, at once and whole."""
        keys = _keys(translator, source, target, list(translations))
        rows = [(key, said, self._run) for key, said in zip(keys, translations.values(), strict=True)]
        with self._named(), self._open:
            self._open.execute("BEGIN IMMEDIATE")
            self._open.executemany("INSERT OR REPLACE INTO translations VALUES (?, ?, ?)", rows)

    def forget_this_run(self) -> None:
        """Take back all that was put since it was opened."""
        with self._named(), self._open:
            self._open.execute("DELETE FROM translations WHERE run = ?", (self._run,))

    def __exit__(self, *_: Any) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None, "outside of the with block"
        return self._connection

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # a full disk, a file that may not be written
            raise VlcliError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise InputError(f"not a translation cache ({error})", file=str(self.path)) from error


def _keys(translator: str, source: str, target: str, texts: Iterable[str]) -> list[bytes]:
    begin = hashlib.sha256("\0".join((translator, source, target, "")).encode())
    keys = []
    for text in texts:
        digest = begin.copy()
        digest.update(text.encode())
        keys.append(digest.digest()[:16])
    return keys


def _parts(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _AT_A_TIME):
        yield keys[start : start + _AT_A_TIME]

"""Prompts in languages: of a command line, of a file, or of rows once for each language."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.generation.prompts import Prompt, row_prompts
from vlcli.records.batch import Batch

_TAGGED = re.compile(r"([a-z]{2,3}(?:-[A-Za-z0-9]+)*)=(.*)", re.DOTALL)
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


def lang_of(prompt: Prompt) -> str | None:
    """The language of a prompt, where it is said."""
    found = prompt.columns.get("lang")
    return found if isinstance(found, str) and found else None


def tagged_prompts(values: Sequence[str]) -> list[Prompt]:
    """`["zh=一只猫", "a cat"]`: texts, with a language's tag in front or without. UsageError for an empty one."""
    found: list[tuple[str | None, str]] = []
    for value in values:
        tagged = _TAGGED.fullmatch(value)
        found.append((tagged[1], tagged[2]) if tagged else (None, value))
        if not found[-1][1].strip():
            raise UsageError(f"--text {value!r} is empty: there is nothing to draw")
    return _named(found)


def read_prompts(file: Path) -> list[Prompt]:
    """A JSON object of language and text, or lines of language, tab and text. UsageError where there is no such file,
    InputError naming the line that is neither."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error.reason})", file=str(file)) from error
    found = _of_json(text, file) if text.lstrip().startswith("{") else _of_lines(text, file)
    if not found:
        raise InputError("it holds no prompt", file=str(file))
    return _named(found)


def prompts_by_language(rows: Callable[[str], Iterable[Batch]], langs: Sequence[str]) -> Iterator[Prompt]:
    """The first text of each row, one language after the other; `rows(lang)` reads them with that one's texts."""
    for lang in langs:
        for name, text, columns in row_prompts(rows(lang)):
            yield Prompt(f"{name}/{lang}", text, columns | {"lang": lang})


def _of_json(text: str, file: Path) -> list[tuple[str | None, str]]:
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg})", file=str(file), line=error.lineno) from error
    for lang, value in pairs:
        if not _TAG.fullmatch(lang) or not isinstance(value, str) or not value.strip():
            raise InputError(f"{lang!r}: not a language and a text", file=str(file))
    return list(pairs)


def _of_lines(text: str, file: Path) -> list[tuple[str | None, str]]:
    found: list[tuple[str | None, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        lang, _, value = line.partition("\t")
        if not value.strip() or not _TAG.fullmatch(lang.strip()):
            raise InputError("not a language, a tab and a text", file=str(file), line=number)
        found.append((lang.strip(), value.strip()))
    return found


def _named(said: Iterable[tuple[str | None, str]]) -> list[Prompt]:
    """Each with a name of its own: its language, or its number."""
    found: list[Prompt] = []
    taken: set[str] = set()
    for number, (lang, text) in enumerate(said):
        name = lang if lang is not None and lang not in taken else f"text/{number}"
        taken.add(name)
        found.append(Prompt(name, text, {"lang": lang} if lang else {}))
    return found

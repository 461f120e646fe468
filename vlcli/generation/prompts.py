"""Prompts: what a command line or a file says in which language."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.records.reader import read

_TAGGED = re.compile(r"([a-z]{2,3}(?:-[A-Za-z0-9]+)*)=(.*)", re.DOTALL)
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Prompt:
    """A text, its language where it is said, and a name."""

    text: str
    lang: str | None = None
    name: str = ""


def parse_prompts(values: Sequence[str]) -> list[Prompt]:
    """`["zh=一只猫", "a cat"]`: texts, with a language's tag in front or without."""
    found = []
    for value in values:
        tagged = _TAGGED.fullmatch(value)
        found.append(Prompt(tagged[2], tagged[1]) if tagged else Prompt(value))
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


def row_prompts(
    paths: Sequence[str],
    *,
    renames: Mapping[str, str] | None = None,
    format: str | None = None,
    head: int | None = None,
    lang: str | None = None,
) -> Iterator[Prompt]:
    """The (first) text of each row, in the language of its column `lang` or in the given one. InputError for a row
    without a text."""
    number = 0
    for batch in read(paths, format=format, renames=renames, head=head):
        frame = batch.frame.select("id", "text", "line")
        said = batch.values("lang") if lang is None else [lang] * len(batch)
        for (name, texts, line), spoken in zip(frame.iter_rows(), said, strict=True):
            if not texts or texts[0] is None or not texts[0].strip():
                place: dict[str, Any] = {"line": line} if batch.text_lines else {"row": line}
                raise InputError("no text to draw", file=batch.file, **place)
            own = name if name is not None else f"{number:06}"
            spoken = spoken if isinstance(spoken, str) and spoken else None
            yield Prompt(texts[0], spoken, own if lang is None else f"{own}/{lang}")
            number += 1


def _of_json(text: str, file: Path) -> list[Prompt]:
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg})", file=str(file), line=error.lineno) from error
    for lang, value in pairs:
        if not _TAG.fullmatch(lang) or not isinstance(value, str):
            raise InputError(f"{lang!r}: not a language and a text", file=str(file))
    return [Prompt(value, lang) for lang, value in pairs]


def _of_lines(text: str, file: Path) -> list[Prompt]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        lang, tab, value = line.partition("\t")
        if not tab or not _TAG.fullmatch(lang.strip()):
            raise InputError("not a language, a tab and a text", file=str(file), line=number)
        found.append(Prompt(value.strip(), lang.strip()))
    return found


def _named(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Each with a name of its own: its language, or its number."""
    found: list[Prompt] = []
    taken: set[str] = set()
    for number, prompt in enumerate(prompts):
        name = prompt.lang or f"{number:06}"
        name = f"{name}-{number:06}" if name in taken else name
        taken.add(name)
        found.append(Prompt(prompt.text, prompt.lang, name))
    return found

"""The languages of a sweep, and `{lang}` in the name of whatever each of them has of its own."""

from __future__ import annotations

import re

from vlcli.errors import UsageError

NINE = ("en", "zh", "es", "fr", "ru", "ar", "ja", "ko", "it")  # AltCLIP's [X §4.1]
SLOT = "{lang}"
_TAG = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")


def parse_langs(value: str, option: str = "--langs") -> tuple[str, ...]:
    """`en,zh` → ("en", "zh"). Raises UsageError for none, for one twice, and for what is no language's tag."""
    langs = tuple(part.strip() for part in value.split(","))
    for lang in langs:
        if not _TAG.fullmatch(lang):
            raise UsageError(f"{option} {value!r}: {lang!r} names no language", remedy=f"{option} en,zh, say")
        if langs.count(lang) > 1:
            raise UsageError(f"{option} {value!r}: {lang} twice")
    return langs


def varies(name: str | None) -> bool:
    """Whether `name` (of a file, a column, a prompt set) is another one in every language."""
    return name is not None and SLOT in name


def named(name: str, lang: str) -> str:
    """`labels.{lang}.txt` → `labels.zh.txt`."""
    return name.replace(SLOT, lang)

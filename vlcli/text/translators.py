"""What `--translator` names: a shell command, or directories of models; one translator for a pair of languages."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vlcli.errors import UsageError
from vlcli.text.line_command import LineCommand
from vlcli.text.seq2seq import Decoding, Seq2Seq, check_directory, fingerprint

COMMAND = "command:"
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*")
_PAIR = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)+=")
_NEXT_PAIR = re.compile(f",(?={_PAIR.pattern})")  # a comma that no pair follows is of a path
_PLACEHOLDER = re.compile(r"\{(?:source|target)\}")
_MOST = 16  # commands and models that are kept at once


class Translator(Protocol):
    """One pair of languages."""

    def translate(self, texts: Sequence[str]) -> list[str]:
        """A translation for each text."""

    def finish(self) -> None:
        """After the last text. Raises where the translator does not end well."""

    def close(self) -> None:
        """Give back what it holds, whatever it is doing."""


def is_language(value: object) -> bool:
    """`de`, `zh-Hans`, `en_XX`: nothing that a shell or a path would read as more than a word."""
    return isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None


def parse_languages(value: str, option: str) -> tuple[str, ...]:
    """`de,ru` → the codes. Raises UsageError for one that is none, or stands there twice."""
    codes = tuple(code.strip() for code in value.split(","))
    for code in codes:
        if not is_language(code):
            raise UsageError(f"{option} {value!r}: {code!r} is no code of a language, such as de or zh_CN")
        if codes.count(code) > 1:
            raise UsageError(f"{option} {value!r}: {code} is there twice")
    return codes


@dataclass(frozen=True)
class TranslatorSpec:
    """`pairs` by "SOURCE-TARGET"; `others` serves every pair that is not among them."""

    pairs: Mapping[str, str] = field(default_factory=dict)
    others: str | None = None

    def of(self, source: str, target: str) -> str:
        """`command:…` or a directory, with its placeholders still in it."""
        said = self.pairs.get(f"{source}-{target}", self.others)
        if said is None:
            raise UsageError(
                f"--translator names nothing that translates {source} to {target}",
                remedy=f"add --translator {source}-{target}=DIR",
            )
        return said

    def directory(self, source: str, target: str) -> Path | None:
        """The model of a pair; None where a command translates it."""
        said = self.of(source, target)
        if said.startswith(COMMAND):
            return None
        return Path(said.replace("{source}", source).replace("{target}", target))

    def has_models(self) -> bool:
        """Whether any pair is a model's."""
        return any(not said.startswith(COMMAND) for said in (*self.pairs.values(), self.others) if said)

    def shown(self) -> str:
        return ", ".join([*(f"{pair}={said}" for pair, said in self.pairs.items()), self.others or ""]).strip(
            ", "
        )


def parse_translators(values: Sequence[str]) -> TranslatorSpec:
    """`command:CMD`, `DIR` and `SOURCE-TARGET=DIR,SOURCE-TARGET=DIR,…`; before a command there may be a pair too."""
    pairs: dict[str, str] = {}
    others: str | None = None
    for value in values:
        first = _PAIR.match(value)
        is_list = first is not None and not value[first.end() :].startswith(COMMAND)
        for part in _NEXT_PAIR.split(value) if is_list else [value]:
            match = _PAIR.match(part)
            pair = match[0][:-1] if match is not None else None
            said = part[match.end() :] if match is not None else part
            if not said.removeprefix(COMMAND).strip():
                raise UsageError(f"--translator {value!r}: neither a directory nor command:COMMAND")
            if pair in pairs or (pair is None and others is not None):
                raise UsageError(f"--translator {value!r}: {pair or 'every pair'} has one already")
            if pair is None:
                others = said
            else:
                pairs[pair] = said
    return TranslatorSpec(pairs, others)


class _OfModel:
    """One pair of a checkpoint that may serve several."""

    def __init__(self, model: Seq2Seq, source: str, target: str) -> None:
        model.check(source, target)
        self._model, self._source, self._target = model, source, target

    def translate(self, texts: Sequence[str]) -> list[str]:
        return self._model.translate(texts, self._source, self._target)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class Translators:
    """A context manager. Starts what a pair needs when it is first asked for, and keeps the latest of them."""

    def __init__(self, spec: TranslatorSpec, decoding: Decoding | None = None) -> None:
        self._spec, self._decoding = spec, decoding or Decoding()
        self._open: OrderedDict[tuple[str, str], Translator] = OrderedDict()
        self._models: OrderedDict[Path, Seq2Seq] = OrderedDict()
        self._prints: dict[str, str] = {}
        self._cut = 0  # of models that were given back

    @property
    def cut(self) -> int:
        """Texts that were longer than a model reads."""
        return self._cut + sum(model.cut for model in self._models.values())

    def check(self, source: str, target: str) -> None:
        """Raises UsageError and InputError for what can be told without starting anything."""
        if (path := self._spec.directory(source, target)) is not None:
            check_directory(path)

    def fingerprint(self, source: str, target: str) -> str:
        """A SHA-256 of what decides the translations of a pair: the files of its model, or the text of its command."""
        path = self._spec.directory(source, target)
        return self._fingerprint(self._spec.of(source, target) if path is None else str(path))

    def fingerprint_of_all(self) -> str:
        """A SHA-256 of what decides the translations of any pair: every command, every directory that is there."""
        prints = []
        for pair, said in [*self._spec.pairs.items(), ("", self._spec.others or COMMAND)]:
            names = [said]
            if not said.startswith(COMMAND):
                names = sorted(glob.glob(_PLACEHOLDER.sub("*", glob.escape(said))))
                names = [name for name in names if os.path.isdir(name)]
            prints += [f"{pair} {self._fingerprint(name)}\n" for name in names]
        return hashlib.sha256("".join(prints).encode()).hexdigest()

    def _fingerprint(self, name: str) -> str:
        """Of a command with its placeholders, or of a directory."""
        if name not in self._prints:
            is_command = name.startswith(COMMAND)
            content = name if is_command else f"{fingerprint(Path(name))}, {self._decoding.said()}"
            self._prints[name] = hashlib.sha256(content.encode()).hexdigest()
        return self._prints[name]

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """A translation for each text, in one call of the pair's translator."""
        pair = (source, target)
        if pair not in self._open:
            while len(self._open) >= _MOST:
                self._finish(next(iter(self._open)))
            self._open[pair] = self._start(source, target)
        self._open.move_to_end(pair)
        return self._open[pair].translate(texts)

    def _start(self, source: str, target: str) -> Translator:
        path = self._spec.directory(source, target)
        if path is None:
            return LineCommand(self._spec.of(source, target).removeprefix(COMMAND), source, target)
        if path not in self._models:
            while len(self._models) >= _MOST:
                self._cut += self._models.popitem(last=False)[1].cut
            self._models[path] = Seq2Seq(path, self._decoding)
        return _OfModel(self._models[path], source, target)

    def finish(self) -> None:
        """After the last text: see that every command ends well."""
        while self._open:
            self._finish(next(iter(self._open)))

    def _finish(self, pair: tuple[str, str]) -> None:
        self._open[pair].finish()
        del self._open[pair]  # only now: what did not end well is closed in the end

    def __enter__(self) -> Translators:
        return self

    def __exit__(self, *_: Any) -> None:
        while self._open:
            self._open.popitem()[1].close()

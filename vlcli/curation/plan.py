"""The resolved plan: which rules apply, in which order, with which bounds, and where each value came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.curation.catalogue import BY_NAME, FINDERS, NAMES, is_off, one_of
from vlcli.curation.fields import parse_fields
from vlcli.curation.leakage import Downstream
from vlcli.curation.measures import SEGMENTERS, WORD_UNITS, Words
from vlcli.curation.preset import Preset
from vlcli.curation.rule import Step
from vlcli.curation.where import Where


@dataclass(frozen=True)
class Choice:
    """One rule as it was asked for. `value` is None when it is switched off."""

    name: str
    value: Any
    origin: str  # "preset wukong", or the option
    overrides: str = ""  # the preset's value that the option replaced

    @property
    def shown(self) -> str:
        if self.value is None:
            return "off"
        return "on" if self.value is True else str(self.value)


@dataclass(frozen=True)
class Plan:
    """Rules in the order in which they apply; `where` stands before all."""

    preset: str | None
    choices: tuple[Choice, ...]
    where: str | None
    words: Words
    words_origin: str
    fields: tuple[str, ...] | None = None  # None: `text`, and ZERO's three where it is absent

    @property
    def is_empty(self) -> bool:
        return self.where is None and all(choice.value is None for choice in self.choices)

    def steps(self) -> tuple[Where | None, list[Step]]:
        """The condition, and the rules after it."""
        built = [BY_NAME[c.name].build(c.value, self.words) for c in self.choices if c.value is not None]
        return (Where(self.where) if self.where is not None else None), [
            step for step in built if step is not None
        ]

    def bound(self, name: str) -> Any:
        """The value of a rule, or None when it does not apply."""
        return next((choice.value for choice in self.choices if choice.name == name), None)

    def language(self) -> str | None:
        """The language of what is kept, where a rule says it."""
        language = self.bound("lang")
        return language.name if language is not None and language.name not in ("any", "latin") else None

    def is_asked(self, name: str) -> bool:
        """Whether the rule is an option of the command line, and not the preset's alone."""
        return any(choice.name == name and choice.origin[0] == "-" for choice in self.choices)

    @property
    def _unit(self) -> str:
        return f"jieba (by {self.words.segmenter})" if self.words.unit == "jieba" else self.words.unit

    def unfilled(self) -> list[str]:
        """The rules that the preset names, but cannot apply without a file that only the user has."""
        return [
            c.name
            for c in self.choices
            if c.name in ("sensitive-words", "against") and c.origin[0] != "-" and c.value is None
        ]

    def fingerprint(self) -> dict[str, Any]:
        """The rules as lineage records them: no paths; a word list by its SHA-256."""
        rules: dict[str, str] = {"where": self.where} if self.where is not None else {}
        for choice in self.choices:
            if isinstance(choice.value, Path):
                rules[choice.name] = "sha256:" + hashlib.sha256(choice.value.read_bytes()).hexdigest()
            elif isinstance(choice.value, Downstream):
                rules[choice.name] = "sha256:" + choice.value.digest()
            elif choice.value is not None:
                rules[choice.name] = choice.shown
        fields = {"fields": ",".join(self.fields)} if self.fields is not None else {}
        return {"preset": self.preset, "word-unit": self._unit, **fields, **rules}

    def table(self) -> list[dict[str, str]]:
        """The plan for people and for the report: one line a rule, in order."""
        lines = [{"rule": "where", "value": self.where, "from": "--where"}] if self.where is not None else []
        if self.fields is not None:
            lines.append({"rule": "fields", "value": ",".join(self.fields), "from": "--fields"})
        for choice in self.choices:
            origin = f"{choice.origin} (preset: {choice.overrides})" if choice.overrides else choice.origin
            lines.append({"rule": choice.name, "value": choice.shown, "from": origin})
            if choice.name == "max-words" or (choice.name == "min-words" and self.bound("max-words") is None):
                lines.append({"rule": "word-unit", "value": self._unit, "from": self.words_origin})
        return lines


def resolve(
    preset: Preset | None,
    options: Mapping[str, Any],
    *,
    where: str | None = None,
    word_unit: str | None = None,
    segmenter: str = "rjieba",
    fields: str | None = None,
) -> Plan:
    """Options over the preset over nothing. `options` maps rule → value as typed, None where it was not
    given.

    A rule of the preset keeps its place; another one takes the place that the catalogue gives it.
    """
    values: dict[str, tuple[Any, str]] = {}
    if preset is not None:
        values = {name: (value, f"preset {preset.name}") for name, value in preset.rules.items()}
    order = list(values)
    overrides: dict[str, str] = {}
    for name in NAMES:
        value = options.get(name)
        if value is None:
            continue
        if name in values:
            overrides[name] = _shown(values[name][0])
        else:
            order.insert(_place(name, order), name)
        values[name] = (value, _option(name, value))
    choices = []
    for name in order:
        value, origin = values[name]
        parsed = None if is_off(value) else BY_NAME[name].parse(value, origin if origin[0] == "-" else name)
        choices.append(Choice(name, parsed, origin, overrides.get(name, "")))
    unit, unit_origin = "char", "default"
    if word_unit is not None:
        unit, unit_origin = one_of(word_unit, WORD_UNITS, "--word-unit"), "--word-unit"
    elif preset is not None:
        unit, unit_origin = preset.word_unit, f"preset {preset.name}"
    chosen = parse_fields(fields, "--fields") if fields is not None else None
    words = Words(unit, one_of(segmenter, SEGMENTERS, "--segmenter"))
    return Plan(preset.name if preset else None, tuple(choices), where, words, unit_origin, chosen)


def _place(name: str, order: list[str]) -> int:
    """Behind the last rule of `order` that the catalogue puts before `name`."""
    before = set(NAMES[: NAMES.index(name)])
    return max((i + 1 for i, other in enumerate(order) if other in before), default=0)


def _option(name: str, value: Any) -> str:
    if name == "mask-names" and value in FINDERS:
        return "--names-by"
    return BY_NAME[name].off_flag if value is False else f"--{name}"


def _shown(value: Any) -> str:
    return "off" if is_off(value) else "on" if value is True else str(value)

"""A preset: a corpus's rules with their bounds, in order, as a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vlcli.curation.catalogue import BY_NAME, NAMES, is_off
from vlcli.errors import UsageError

PRESETS = Path(__file__).parent / "presets"


class Preset(BaseModel):
    """`rules` maps rule → value, in the file's order; "off" is a rule of the corpus that is not applied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str = ""
    source: str = ""
    word_unit: Literal["char", "mixed", "unigram", "jieba", "wordpiece"] = Field(
        default="char", alias="word-unit"
    )
    rules: dict[str, str | int | float | bool]

    @field_validator("rules")
    @classmethod
    def _known(cls, rules: dict[str, Any]) -> dict[str, Any]:
        for name, value in rules.items():
            if name not in BY_NAME:
                raise ValueError(f"no rule is called {name!r}{_nearest(name)}")
            if not is_off(value) and name != "sensitive-words":
                BY_NAME[name].parse(value, name)
        if "max-per-query" in rules and next(iter(rules)) != "max-per-query":
            raise ValueError(
                "max-per-query must come first: text frequency is counted after it and before all else"
            )
        return rules


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; rules are {', '.join(NAMES)}"


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name_or_file: str) -> Preset:
    """A preset that ships with vlcli, by name, or one in a file (what has a `/` or ends in `.toml`)."""
    is_file = name_or_file.endswith(".toml") or "/" in name_or_file
    path = Path(name_or_file) if is_file else PRESETS / f"{name_or_file}.toml"
    if not path.is_file():
        remedy = "" if is_file else f"presets are {', '.join(preset_names())}"
        raise UsageError(f"--preset {name_or_file}: no such {'file' if is_file else 'preset'}", remedy=remedy)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        preset = Preset.model_validate({"name": path.stem, **table})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    words = preset.rules.get("sensitive-words")
    if isinstance(words, str) and not is_off(words):  # a list stands beside the preset that names it
        rules = {**preset.rules, "sensitive-words": str(path.parent / words)}
        return preset.model_copy(update={"rules": rules})
    return preset

"""From the columns of any input to the known ones: names and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlcli.errors import UsageError

# known column -> what public sets call it (LAION, Wukong, img2dataset, HF imagefolder); the first present is
# taken.
PUBLIC_NAMES = {
    "text": ("TEXT", "caption"),
    "image": ("file_name", "URL", "url"),
    "width": ("WIDTH",),
    "height": ("HEIGHT",),
}
KNOWN = ("id", "image", "image_id", "text", "text_candidates", "query", "width", "height")


class Renames:
    """`--map` first, then the public names where the known name is absent."""

    def __init__(self, renames: Mapping[str, str] | None) -> None:
        self.renames = dict(renames or {})
        self.missing = set(self.renames)  # old names that no input has shown so far

    def names(self, columns: Sequence[str], place: str) -> list[str]:
        """New names of the columns of a table."""
        self.missing.difference_update(columns)
        new = [self.renames.get(name, name) for name in columns]
        if len(set(new)) < len(new):
            self._clash(new, place)
        for known, publics in PUBLIC_NAMES.items():
            if known not in new:
                public = next((p for p in publics if p in new), None)
                if public is not None:
                    new[new.index(public)] = known
        return new

    def row(self, row: dict[str, Any], place: str) -> dict[str, Any]:
        """One object with its new names; `place` is for the message."""
        if self.renames:
            self.missing.difference_update(row)
            new = {self.renames.get(name, name): value for name, value in row.items()}
            if len(new) < len(row):
                self._clash([self.renames.get(name, name) for name in row], place)
            row = new
        for known, publics in PUBLIC_NAMES.items():
            if known not in row:
                for public in publics:
                    if public in row:
                        row[known] = row.pop(public)
                        break
        return row

    def _clash(self, names: list[str], place: str) -> None:
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"{place}: --map makes a second column {twice!r}",
            remedy=f"rename that one away too: --map old_{twice}={twice}",
        )

    def check_all_seen(self) -> None:
        """After the last row: a name that no row had is most likely a slip."""
        if self.missing:
            old = sorted(self.missing)[0]
            raise UsageError(f"--map {self.renames[old]}={old}: no row has a column {old!r}")


class BadValue(ValueError):
    """The cause for which a row is bad."""


def take_known(row: dict[str, Any]) -> tuple[list[Any], bool]:
    """Remove the known columns from `row`; their values in the order of KNOWN, and whether `text` was one
    string.

    Raises BadValue for a wrong type.
    """
    pop = row.pop
    text = pop("text", None)
    scalar = isinstance(text, str)
    texts = [text] if scalar else _strings("text", text)
    candidates = pop("text_candidates", None)
    values = [
        _name("id", pop("id", None)),
        _reference(pop("image", None)),
        _name("image_id", pop("image_id", None)),
        texts,
        [candidates] if isinstance(candidates, str) else _strings("text_candidates", candidates),
        _string("query", pop("query", None)),
        _side("width", pop("width", None)),
        _side("height", pop("height", None)),
    ]
    return values, scalar


def has_nul(values: list[Any]) -> bool:
    """Whether a known value holds a NUL character, which neither paths nor word lists survive."""
    return any(
        "\0" in v if isinstance(v, str) else isinstance(v, list) and any("\0" in x for x in v) for v in values
    )


def _shown(value: Any) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _string(column: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadValue(f"{column} is {_shown(value)}, not a string")


def _name(column: str, value: Any) -> str | None:
    # Public sets number their images and captions; an identity is text here.
    return str(value) if type(value) is int else _string(column, value)


def _strings(column: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise BadValue(f"{column} is {_shown(value)}, not a string or a list of strings")
    for item in value:
        if not isinstance(item, str):
            raise BadValue(f"{column} holds {_shown(item)} among its strings")
    return value


def _reference(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("path"), str) and value.get("bytes") is None:
        return value["path"]
    if isinstance(value, dict) and value.get("bytes") is not None:
        raise BadValue("image carries bytes, which JSON cannot; write data:image/…;base64,… instead")
    raise BadValue(f"image is {_shown(value)}, not a path")


def _side(column: str, value: Any) -> int | None:
    if value is None or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    raise BadValue(f"{column} is {_shown(value)}, not a whole number of pixels")

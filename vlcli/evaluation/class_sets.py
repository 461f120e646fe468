"""What is known of public sets of labelled images: their number, and how many classes and images they have."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vlcli.errors import UsageError

_FILE = Path(__file__).parent / "data" / "class_sets.toml"


@dataclass(frozen=True)
class ClassSet:
    """One set. `metric` is a key of results; `images` counts its splits as far as that is known."""

    name: str
    title: str
    metric: str
    classes: int
    counts: str
    groups: tuple[str, ...]
    several: bool = False
    images: dict[str, int] = field(default_factory=dict)

    def departures(self, classes: int, images: int, left_out: int = 0) -> list[str]:
        """What differs from the set as it is published, in words; nothing where all agrees.

        `classes` and `images` are those of a test, which left out `left_out` images on purpose.
        """
        found = []
        if classes != self.classes and not left_out:
            found.append(f"{self.name} has {self.classes} classes, here are {classes}")
        expected = self.images.get("test")
        if expected is not None and images + left_out != expected:
            found.append(
                f"the test split of {self.name} has {expected:,} images, here are {images + left_out:,}"
            )
        return found


@cache
def class_sets() -> dict[str, ClassSet]:
    """All sets by name."""
    with _FILE.open("rb") as file:
        found = tomllib.load(file)
    return {name: ClassSet(name, **{**said, "groups": tuple(said["groups"])}) for name, said in found.items()}


def class_set(name: str) -> ClassSet:
    """UsageError naming what is near for a name that no set has."""
    known = class_sets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:5]
        raise UsageError(
            f"--dataset {name}: no set of labelled images is called so", remedy=f"see {', '.join(near)}"
        )
    return known[name]

"""FILIP's grammar of templates: `[prefix] {label}, [category description]. [suffix].` [F Eq 6, Table 11]."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path

_FILE = Path(__file__).parent / "data" / "filip-prompts.toml"
SETS = (
    *("cifar10", "cifar100", "caltech101", "cars", "flowers102", "imagenet"),
    *("food101", "sun397", "dtd", "aircraft", "pets", "eurosat"),
)
NAMES = tuple(f"filip-{name}" for name in SETS)


def expand(prefixes: Sequence[str], categories: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """All combinations, the suffix changing fastest; "" leaves out the comma's part or the last sentence."""
    return [
        f"{prefix} {{}}" + (f", {category}" if category else "") + "." + (f" {suffix}." if suffix else "")
        for prefix, category, suffix in product(prefixes, categories, suffixes)
    ]


@cache
def filip_prompts(name: str) -> tuple[str, ...]:
    """The templates of one of NAMES."""
    with _FILE.open("rb") as file:
        lists = tomllib.load(file)[name.removeprefix("filip-")]
    return tuple(expand(lists["prefix"], lists.get("category", [""]), lists["suffix"]))

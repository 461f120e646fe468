"""A grid of training runs: which settings, under which names, by which command lines.

An axis is a key and its values: a key with a dot is one of the recipe ("model.dim"), one without is an option of the
training command ("recipe", "head", "batch-size"). A variant is several settings under one name. The grid is the product
of the axes and the variants, and every point of it is trained once a seed.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vlcli.errors import UsageError

TRAINING = ("pretrain", "finetune", "distill")
MEASURING = ("retrieve", "zeroshot")
VARIANT = "variant"  # what the axis of variants is called
# Options of a training command that each run of a sweep has its own of.
OWN = (
    "-o",
    "--output",
    "--seed",
    "--resume",
    "--force",
    "-n",
    "--dry-run",
    "--profile",
    "-q",
    "--quiet",
    "--json",
)
_KEY = re.compile(r"[a-z][\w-]*(\.[\w-]+)*")


@dataclass(frozen=True)
class Axis:
    """`values` as they are shown, and what each of them sets: (key, value) after (key, value)."""

    name: str
    values: dict[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Evaluation:
    """A command that measures a run, without the run: `retrieve --data FILE …`, under a name."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training. `at` says where on each axis it stands."""

    at: dict[str, str]
    seed: int
    settings: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Of its directory: what it differs by, and the seed."""
        shown = ",".join(f"{axis}={value}" for axis, value in self.at.items()) or "run"
        safe = re.sub(r"[^\w.=,+-]+", "-", shown).strip("-.")
        if safe != shown or len(safe) > 160:  # names that were cut or cleaned alike still differ
            safe = f"{safe[:150]}-{hashlib.sha256(shown.encode()).hexdigest()[:8]}"
        return f"{safe},seed={self.seed}"

    def options(self) -> list[str]:
        """What its command line has besides the sweep's."""
        words = []
        for key, value in self.settings:
            words += ["--set", f"{key}={value}"] if "." in key else [f"--{key}", value]
        return [*words, "--seed", str(self.seed)]


@dataclass(frozen=True)
class Sweep:
    """`command` trains, from `vlcli` on, without what differs; `evaluations` measure what it leaves."""

    command: tuple[str, ...]
    axes: tuple[Axis, ...] = ()
    seeds: tuple[int, ...] = (0,)
    evaluations: tuple[Evaluation, ...] = ()
    numbers: tuple[str, ...] = field(
        default=()
    )  # dotted names of what the table shows; () for the usual ones

    def runs(self) -> list[Run]:
        """All of them, seed by seed, so that a sweep that was stopped has whole tables of fewer seeds."""
        points = list(itertools.product(*(axis.values.items() for axis in self.axes)))
        return [
            Run(
                {axis.name: value for axis, (value, _) in zip(self.axes, point, strict=True)},
                seed,
                tuple(setting for _, settings in point for setting in settings),
            )
            for seed in self.seeds
            for point in points
        ]


def parse_command(words: Sequence[str]) -> tuple[str, ...]:
    """What stands behind `--`. Raises UsageError for another command than those that train."""
    words = list(words)
    if not words or words[0] not in TRAINING:
        found = f"{words[0]!r} does not train" if words else "no training command"
        raise UsageError(
            found, remedy="vlcli sweep --grid model.dim=128,256 -- pretrain --recipe NAME --data shards/"
        )
    for word in words[1:]:
        if word.partition("=")[0] in OWN:
            raise UsageError(
                f"{word} behind --: every run of a sweep has its own",
                remedy=_INSTEAD.get(word, "leave it out"),
            )
    return tuple(words)


_INSTEAD = {
    "-o": "sweep -o DIR",
    "--output": "sweep -o DIR",
    "--seed": "--seeds 0,1,2",
    "-n": "sweep --dry-run",
}


def parse_axis(text: str) -> Axis:
    """`model.dim=128,256`. Commas inside brackets or quotes are the value's own."""
    key, equals, values = text.partition("=")
    _check_key(key, equals, f"--grid {text!r} is not KEY=VALUE,VALUE")
    found = _split(values)
    if not all(found):
        raise UsageError(f"--grid {text!r}: an empty value")
    if len(set(found)) < len(found):
        raise UsageError(f"--grid {text!r}: a value twice")
    return Axis(key, {value: ((key, value),) for value in found})


def parse_variants(texts: Sequence[str]) -> Axis | None:
    """`NAME: KEY=VALUE KEY=VALUE`, each one; `NAME:` alone changes nothing."""
    values: dict[str, tuple[tuple[str, str], ...]] = {}
    for text in texts:
        name, colon, settings = text.partition(":")
        name = name.strip()
        if not colon or not name:
            raise UsageError(f"--variant {text!r} is not 'NAME: KEY=VALUE KEY=VALUE'")
        if name in values:
            raise UsageError(f"--variant {name} twice")
        pairs = []
        for word in _words(settings, f"--variant {text!r}"):
            key, equals, value = word.partition("=")
            _check_key(key, equals, f"--variant {name}: {word!r} is not KEY=VALUE")
            pairs.append((key, value))
        values[name] = tuple(pairs)
    return Axis(VARIANT, values) if values else None


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2`."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--seeds {text!r} is not a list of numbers", remedy="--seeds 0,1,2")
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text!r}: one twice")
    return seeds


def parse_evaluation(text: str) -> Evaluation:
    """`NAME: retrieve --data FILE …`."""
    name, colon, command = text.partition(":")
    name, words = name.strip(), _words(command, f"--evaluate {text!r}")
    if not colon or not re.fullmatch(r"[\w.+-]+", name) or not words:
        raise UsageError(f"--evaluate {text!r} is not 'NAME: retrieve --data FILE'")
    if words[0] not in MEASURING:
        raise UsageError(f"--evaluate {name}: {words[0]} is none of {', '.join(MEASURING)}")
    if "--json" in words:
        words.remove("--json")
    return Evaluation(name, tuple(words))


def make(
    command: Sequence[str],
    grid: Sequence[str],
    variants: Sequence[str],
    seeds: str,
    evaluations: Sequence[str],
    numbers: Sequence[str] = (),
) -> Sweep:
    """A sweep from what the command line says. Raises UsageError."""
    axes = [parse_axis(text) for text in grid]
    if (named := parse_variants(variants)) is not None:
        axes.insert(0, named)
    measured = tuple(parse_evaluation(text) for text in evaluations)
    for what, names in (
        ("--grid", [axis.name for axis in axes]),
        ("--evaluate", [one.name for one in measured]),
    ):
        if len(set(names)) < len(names):
            raise UsageError(f"{what} names {max(names, key=names.count)} twice")
    sweep = Sweep(parse_command(command), tuple(axes), parse_seeds(seeds), measured, tuple(numbers))
    for axis in axes:
        for key in {key for settings in axis.values.values() for key, _ in settings}:
            if "." not in key and any(word.partition("=")[0] == f"--{key}" for word in sweep.command):
                raise UsageError(f"--{key} stands behind -- and in the grid", remedy="say it once")
    return sweep


def described(sweep: Sweep) -> dict[str, Any]:
    """What makes the runs of one directory comparable: the grid may grow, this may not change."""
    return {"command": list(sweep.command)}


def _check_key(key: str, equals: str, cause: str) -> None:
    if not equals or not _KEY.fullmatch(key):
        raise UsageError(cause)
    if key in ("seed", "output", "resume", "force", VARIANT):
        raise UsageError(
            f"{key} is no axis", remedy="--seeds 0,1,2" if key == "seed" else "the sweep sets it itself"
        )


def _words(text: str, shown: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{shown}: {error}") from None


def _split(text: str) -> list[str]:
    """At the commas outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    return [part.strip() for part in parts]

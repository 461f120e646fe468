"""`generate --caption`: rows in, the same rows with what a captioner says of their pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlcli.commands._console import Console


@dataclass(frozen=True)
class Rows:
    """What is read, and how."""

    inputs: Sequence[str]
    format: str | None
    renames: Mapping[str, str]
    image_root: Path | None
    head: int | None
    max_bad: str


@dataclass(frozen=True)
class Place:
    """Where captions go: rows, or COCO's list of results."""

    output: str | None
    shape: str
    format: str | None
    rejects: Path | None
    force: bool = False


def decoding(
    decode: str | None,
    beams: int | None,
    min_length: int | None,
    max_length: int | None,
    top_p: float | None,
    temperature: float | None,
    repetition_penalty: float | None,
    seed: int,
) -> dict[str, Any]:
    """What the options say of decoding; UsageError for one that does nothing beside --decode."""
    way = decode or "greedy"
    for name, value, wanted in (
        ("--beams", beams, "beam"),
        ("--top-p", top_p, "sample"),
        ("--temperature", temperature, "sample"),
    ):
        if value is not None and way != wanted:
            raise UsageError(f"{name} goes with --decode {wanted}")
    given = {
        "way": way,
        "beams": beams,
        "min_length": min_length,
        "max_length": max_length,
        "top_p": top_p,
        "temperature": temperature,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    return {name: value for name, value in given.items() if value is not None}


def captions(
    run: str,
    rows: Rows,
    place: Place,
    decoding: Mapping[str, Any],
    console: Console,
    *,
    device: str,
    precision: str,
    batch_size: int,
) -> None:
    """Write the rows with their captions."""
    from vlcli.models.quickcheck import kind_of

    if place.shape == "coco" and place.format is not None:
        raise UsageError("--format coco is JSON: it has no --to")
    if (kind := kind_of(run)) != "captioner":
        raise UsageError(f"{run} is a checkpoint of kind {kind!r}; --caption wants 'captioner'")

"""Tables of names: each row pairs a tensor of ours with one or several of a foreign model, and a reshape between them.

    Row("image.body.blocks.{n}.attn.qkv.weight", ("layers.{n}.q_proj.weight", "….k_proj.…", "….v_proj.…"))

`{n}` and `{m}` stand for numbers, the same on both sides; `{n+1}` for the next one. Several foreign names are the parts
of one tensor along its first dimension. A table reads both ways, and every way says what it could not place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from vlcli.errors import InputError

_FIELD = re.compile(r"\{([nm])(\+1)?\}")


@dataclass(frozen=True)
class Shape:
    """A reshape and its inverse, exact in every bit."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


SAME = Shape(lambda x: x, lambda x: x)
TRANSPOSED = Shape(lambda x: x.T, lambda x: x.T)
# (c,) ↔ (1, 1, c) and (n, c) ↔ (1, n, c): timm's class token and positions have a batch dimension
TOKEN = Shape(lambda x: x[None, None], lambda x: x[0, 0])
POSITIONS = Shape(lambda x: x[None], lambda x: x[0])
# what may have been stored as (1,)
SCALAR = Shape(lambda x: x.reshape(()) if x.numel() == 1 else x, lambda x: x)
# τ as R2D2 stores it. In float64, so that the way back gives the very float32 that came.
TEMPERATURE = Shape(lambda x: -x.double().log(), lambda x: (-x.double()).exp().float())


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    ours: str
    theirs: str | tuple[str, ...]
    shape: Shape = SAME

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def pair(ours: str, theirs: str) -> tuple[Row, Row]:
    """The rows of a layer's weight and bias."""
    return Row(f"{ours}.weight", f"{theirs}.weight"), Row(f"{ours}.bias", f"{theirs}.bias")


def joined(ours: str, *theirs: str) -> tuple[Row, Row]:
    """The same for a layer that the foreign model holds in parts."""
    return (
        Row(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs)),
        Row(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)),
    )


def under(rows: Iterable[Row], ours: str = "", theirs: str = "") -> tuple[Row, ...]:
    """The rows with a prefix on either side."""
    return tuple(
        replace(row, ours=ours + row.ours, theirs=tuple(theirs + part for part in row.parts)) for row in rows
    )


@dataclass
class Placed:
    """The tensors under their new names, and what did not come along.

    `unplaced`: source names that no row knows. `incomplete`: names that a row needs beside others that are there.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


def to_ours(rows: Sequence[Row], state: Mapping[str, Tensor], *, known: Sequence[str] = ()) -> Placed:
    """Foreign tensors under our names. `known` are regular expressions of names that carry no information."""
    placed, seen = Placed(), set[str]()
    for row in rows:
        first = _pattern(row.parts[0])
        for name in state if "{" in row.parts[0] else (row.parts[0],) if row.parts[0] in state else ():
            if (match := first.fullmatch(name)) is None:
                continue
            numbers = _numbers(match)
            names = [_fill(part, numbers) for part in row.parts]
            absent = [part for part in names if part not in state]
            seen.update(names)
            if absent:
                placed.incomplete += absent
                continue
            whole = state[names[0]] if len(names) == 1 else torch.cat([state[part] for part in names])
            placed.state[_fill(row.ours, numbers)] = row.shape.to_ours(whole)
    ignored = re.compile("|".join(known)) if known else None
    placed.unplaced = sorted(
        name for name in state if name not in seen and not (ignored and ignored.fullmatch(name))
    )
    return placed


def to_theirs(rows: Sequence[Row], state: Mapping[str, Tensor]) -> Placed:
    """Our tensors under the foreign names, contiguous."""
    placed, seen = Placed(), set[str]()
    for row in rows:
        pattern = _pattern(row.ours)
        for name in state if "{" in row.ours else (row.ours,) if row.ours in state else ():
            if (match := pattern.fullmatch(name)) is None:
                continue
            seen.add(name)
            numbers, tensor = _numbers(match), row.shape.to_theirs(state[name])
            for part, piece in zip(
                row.parts, tensor.chunk(len(row.parts)) if len(row.parts) > 1 else [tensor], strict=True
            ):
                placed.state[_fill(part, numbers)] = piece.contiguous()
    placed.unplaced = sorted(name for name in state if name not in seen)
    return placed


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression with a named group for each number."""
    parts, end, seen = [], 0, set[str]()
    for found in _FIELD.finditer(template):
        group = found[1] + ("1" if found[2] else "")
        again = f"(?P={group})" if group in seen else f"(?P<{group}>\\d+)"
        parts += [re.escape(template[end : found.start()]), again]
        seen.add(group)
        end = found.end()
    return re.compile("".join(parts) + re.escape(template[end:]))


def _numbers(match: re.Match[str]) -> dict[str, int]:
    return {group[0]: int(text) - (len(group) - 1) for group, text in match.groupdict().items()}


def _fill(template: str, numbers: Mapping[str, int]) -> str:
    return _FIELD.sub(lambda found: str(numbers[found[1]] + bool(found[2])), template)


def listed(names: Sequence[str], *, first: int = 3) -> str:
    """`3 tensors: a, b, c` or `12 tensors: a, b, c and 9 more`."""
    count = f"{len(names):,} tensor{'' if len(names) == 1 else 's'}"
    more = f" and {len(names) - first:,} more" if len(names) > first else ""
    return f"{count}: {', '.join(names[:first])}{more}"


class UnplacedError(InputError):
    """Names that found no place; `names` are all of them, sorted."""

    def __init__(self, cause: str, names: Sequence[str], *, file: str = "", remedy: str = "") -> None:
        super().__init__(f"{cause} {listed(names)}", file=file, remedy=remedy)
        self.names = list(names)
        self.add_note("\n".join(self.names))  # what --debug prints

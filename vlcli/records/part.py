"""`--part i/n`: which share of the work is this process's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from vlcli.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One of `count` parts of a sequence: consecutive items of it."""

    number: int = 0
    count: int = 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        return items[self.number * len(items) // self.count : (self.number + 1) * len(items) // self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_part(value: str) -> Part:
    """`3/8`, the parts being 0/8 to 7/8."""
    number, slash, count = value.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and int(number) < int(count):
        return Part(int(number), int(count))
    raise UsageError(
        f"--part {value!r} is not i/n with 0 <= i < n",
        remedy="for a job array from 0 to 7: --part $SLURM_ARRAY_TASK_ID/8",
    )

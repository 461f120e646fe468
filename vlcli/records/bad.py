"""Bad rows: diverted, counted, and too many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from vlcli.records.rejects import RejectsWriter


class BadRows:
    """Counts bad rows against `--max-bad`: N rows, checked at each, or `P%` of all, judged at the end."""

    def __init__(self, max_bad: str, rejects: RejectsWriter | None = None) -> None:
        self.max_bad, self.rejects = max_bad, rejects
        self.count = 0  # bad rows
        self.seen = 0  # all rows, bad ones included; the reader keeps it
        self.first = ""  # where the first one was, and why
        self._number, self._percent = parse_max_bad(max_bad)

    def add(
        self, file: str, line: int, cause: str, raw: bytes | dict[str, Any], *, text_lines: bool = True
    ) -> None:
        """Divert one row. Raises InputError when it is one too many."""
        self.count += 1
        if self.rejects is not None:
            self.rejects.write_bad(file, line, cause, raw)
        place: dict[str, Any] = {"line": line} if text_lines else {"row": line}
        if not self.first:
            self.first = str(InputError(cause, file=file, **place))
        if self._number is not None and self.count > self._number:
            excess = f" (bad row {self.count}; --max-bad is {self.max_bad})" if self._number else ""
            raise InputError(cause + excess, file=file, **place)

    def judge(self) -> None:
        """At the end of the input. Raises InputError when more than the allowed share was bad."""
        if self._percent is not None and self.count * 100 > self._percent * self.seen:
            raise InputError(
                f"{self.count} of {self.seen} rows are bad, more than --max-bad {self.max_bad}",
                remedy=f"the first is {self.first}",
            )


def parse_max_bad(max_bad: str) -> tuple[int | None, float | None]:
    """`N` → (N, None), `P%` → (None, P). UsageError for anything else."""
    text = max_bad.strip()
    try:
        if text.endswith("%"):
            percent = float(text[:-1])
            if 0 <= percent <= 100:
                return None, percent
        elif text.isdecimal():
            return int(text), None
    except ValueError:
        pass
    raise UsageError(f"--max-bad {max_bad!r} is neither a number nor a percentage such as 0.5%")

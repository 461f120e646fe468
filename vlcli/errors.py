"""What can go wrong, as the exit codes know it.

Every class is a `ValueError` (a user can cause it); `cli.py` turns each into one line on stderr and its code.
Anything else that escapes is a runtime error: exit 1.
"""

from __future__ import annotations


class VlcliError(ValueError):
    """One line for the user: `cause`, and after it `remedy` when there is one. Exit code in `exit_code`."""

    exit_code = 1

    def __init__(self, cause: str, *, remedy: str = "") -> None:
        super().__init__(f"{cause}; {remedy}" if remedy else cause)


class UsageError(VlcliError):
    """The command line, a recipe or a missing file that the user must supply: exit 2."""

    exit_code = 2


class InputError(VlcliError):
    """Damaged input, or more bad rows than `--max-bad` allows: exit 3.

    `line` is 1-based for lines of text; for Parquet and Arrow give `row` (0-based), shown as `file#ROW`.
    """

    exit_code = 3

    def __init__(
        self, cause: str, *, file: str = "", line: int | None = None, row: int | None = None, remedy: str = ""
    ) -> None:
        place = file
        if line is not None:
            place = f"{file}:{line}"
        elif row is not None:
            place = f"{file}#{row}"
        super().__init__(f"{place}: {cause}" if place else cause, remedy=remedy)


class MissingImage(InputError):
    """One reference names nothing in a container that is sound: that row's problem alone."""


class Incomplete(VlcliError):
    """Stopped before the end, and what was written can be resumed: exit 4."""

    exit_code = 4


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that `finally` and `with` clean up: exit 143."""

"""What a command says on stderr: notes, progress and tables. Nothing here touches stdout, but for `show_table`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from vlcli.text.direction import isolated

_color = "auto"  # of this command line: auto, always, never


def set_color(when: str) -> None:
    """What `--color` says, for all that is shown from now on."""
    global _color
    _color = when


def is_dumb() -> bool:
    """The terminal understands neither colours nor movements of the cursor."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def color_settings() -> dict[str, Any]:
    """`color_system` and `force_terminal` of a rich console. Auto leaves the terminal's abilities to rich."""
    if _color == "always":
        return {"color_system": "standard", "force_terminal": True}
    plain = _color == "never" or bool(os.environ.get("NO_COLOR")) or is_dumb()
    return {"color_system": None if plain else "auto", "force_terminal": None}


def rich_console(stream: Any) -> Any:
    """A rich console on `stream` that obeys --color, NO_COLOR and TERM."""
    from rich.console import Console as RichConsole

    # rich reads NO_COLOR itself, and would strip what --color always asks for
    return RichConsole(file=stream, no_color=False, **color_settings())


def color_help() -> None:
    """Make typer's help obey too."""
    from typer import rich_utils

    settings = color_settings()
    rich_utils.COLOR_SYSTEM = settings["color_system"]
    rich_utils.FORCE_TERMINAL = settings["force_terminal"]
    if _color == "always":
        os.environ.pop("NO_COLOR", None)


class Console:
    """Notes on stderr; `-q` silences them, `-v` adds more. Progress is drawn only on a terminal."""

    def __init__(
        self, program: str, *, quiet: bool = False, verbose: int = 0, log_every: float = 10.0
    ) -> None:
        self.program = f"vlcli {program}"
        self.quiet, self.verbose, self.log_every = quiet, verbose, log_every
        self._last_line = 0.0

    @property
    def is_terminal(self) -> bool:
        """Progress can be drawn."""
        return sys.stderr.isatty() and not is_dumb()

    def note(self, text: str, *, level: int = 0) -> None:
        """A line on stderr, shown when `-v` was given at least `level` times."""
        if not self.quiet and self.verbose >= level:
            print(f"{self.program}: {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def log(self, text: str, *, last: bool = False) -> None:
        """A progress line for a log file: at most one every `log_every` seconds, and the last one always."""
        now = time.monotonic()
        if last or now - self._last_line >= self.log_every:
            self._last_line = now
            self.note(text)

    def progress(self, *columns: Any) -> Any:
        """A rich `Progress` on stderr, disabled when stderr is no terminal or `-q` was given."""
        from rich.progress import Progress

        return Progress(
            *(columns or Progress.get_default_columns()),
            console=rich_console(sys.stderr),
            disable=self.quiet or not self.is_terminal,
            transient=False,
        )


def show_table(title: str, header: list[str], rows: list[list[str]], *, stream: Any = None) -> None:
    """A table for people: on stdout for report commands (their data), elsewhere pass `sys.stderr`."""
    from rich.table import Table
    from rich.text import Text

    def plain(text: str, style: str = "") -> Text:
        """A caption's brackets and colons are no markup, and its direction is nobody else's."""
        return Text(isolated(text), style)

    table = Table(title=plain(title, "table.title"), title_justify="left")
    for i, name in enumerate(header):
        table.add_column(plain(name), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*map(plain, row))
    rich_console(stream or sys.stdout).print(table)

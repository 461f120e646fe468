"""What a command says on stderr: notes, progress and tables. Nothing here touches stdout."""

from __future__ import annotations

import sys
import time
from typing import Any


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
        return sys.stderr.isatty()

    def note(self, text: str, *, level: int = 0) -> None:
        """A line on stderr, shown when `-v` was given at least `level` times."""
        if not self.quiet and self.verbose >= level:
            print(f"{self.program}: {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def log(self, text: str) -> None:
        """A progress line for a log file: at most one every `log_every` seconds."""
        now = time.monotonic()
        if now - self._last_line >= self.log_every:
            self._last_line = now
            self.note(text)

    def progress(self, *columns: Any) -> Any:
        """A rich `Progress` on stderr, disabled when stderr is no terminal or `-q` was given."""
        from rich.console import Console as RichConsole
        from rich.progress import Progress

        return Progress(
            *(columns or Progress.get_default_columns()),
            console=RichConsole(stderr=True),
            disable=self.quiet or not self.is_terminal,
            transient=False,
        )


def show_table(title: str, header: list[str], rows: list[list[str]], *, stream: Any = None) -> None:
    """A table for people: on stdout for report commands (their data), elsewhere pass `sys.stderr`."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    RichConsole(file=stream or sys.stdout).print(table)

"""A figure into its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vlcli.records.atomic import atomic_file


class Drawable(Protocol):
    """A sheet of alignments, a gallery, a map."""

    def render(self, kinds: Sequence[str]) -> dict[str, bytes]: ...
    def as_json(self) -> Any: ...


def write_figure(figure: Drawable, targets: Mapping[str, Path], *, force: bool = False) -> list[Path]:
    """Writes `figure` as each of the kinds; returns the files."""
    for kind, content in figure.render(list(targets)).items():
        with atomic_file(targets[kind], force=force) as file:
            file.write(content)
    return list(targets.values())

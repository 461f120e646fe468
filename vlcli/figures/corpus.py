"""The figures of a corpus, asked for before it is read and drawn after: a word cloud, and histograms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.figures.canvas import kind_of, render
from vlcli.figures.fonts import find_fonts
from vlcli.figures.histogram import draw_histograms
from vlcli.figures.wordcloud import draw_cloud, drawable
from vlcli.records.atomic import atomic_file, check_place

CLOUD_WORDS = 200


@dataclass(frozen=True)
class Figures:
    """Files to draw, None for those that nobody wants."""

    cloud: Path | None = None
    histogram: Path | None = None
    seed: int = 0
    force: bool = False

    def check(self) -> None:
        """Before a corpus is read for hours: raises UsageError for a name that cannot be, NoFont without fonts."""
        wanted = [file for file in (self.cloud, self.histogram) if file is not None]
        for file in wanted:
            kind_of(file)
            check_place(file, force=self.force)
        if len({os.path.realpath(file) for file in wanted}) < len(wanted):
            raise UsageError(f"--wordcloud and --histogram name one file, {self.cloud}")
        if wanted:
            find_fonts()

    def draw(self, report: Mapping[str, Any]) -> list[str]:
        """Writes the figures of a report of `curation.statistics.collect`; a line for each about what it shows.

        Raises InputError where there is no word to draw.
        """
        notes = []
        if self.cloud is not None:
            words = [(line["word"], line["count"]) for line in report["words"]["top"][:CLOUD_WORDS]]
            shown = drawable(words, find_fonts())
            if not shown:
                raise InputError("no word to draw a cloud of")
            figure = draw_cloud(shown, seed=self.seed)
            self._write(self.cloud, figure)
            left = f"; {len(words) - len(shown)} have no glyph" if len(shown) < len(words) else ""
            notes.append(
                f"{self.cloud}: {len(figure.axes[0].patches)} of {len(words)} words found room{left}"
            )
        if self.histogram is not None:
            self._write(self.histogram, draw_histograms(report))
            notes.append(str(self.histogram))
        return notes

    def _write(self, path: Path, figure: Any) -> None:
        content = render(figure, kind_of(path))
        with atomic_file(path, force=self.force) as file:
            file.write(content)

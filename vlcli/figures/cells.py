"""A contact sheet of alignments: many pictures, each with its maps in small beside it and its text below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlcli.figures.alignment import groups, require_glyphs
from vlcli.figures.canvas import plain_settings
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.figures.panels import INK, PAPER, Row, heat, limits_of, picture, shorten
from vlcli.text.direction import isolated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, GAP, WORDS = 1.25, 0.12, 0.42  # inches: a panel, the space between, the two lines below
WIDTH = 12.0  # of the figure, at most, where one cell is not wider
FAINT = "#6e6e6e"


def draw_cells(rows: Sequence[Row], *, fonts: Fonts | None = None) -> Figure:
    """The groups of `rows`, from left to right and downwards. Below each stand its text, and how much of the picture
    is on it or the score that the map explains. Raises NoFont naming a character that no font has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = fonts or find_fonts()
    require_glyphs(rows, fonts)
    limits, parts = limits_of(rows), groups(rows)
    across = 1 + max(len(group) for group in parts)
    cell = across * (SIDE + 0.03) + GAP
    many = max(1, min(len(parts), int((WIDTH - GAP) / cell)))
    lines = -(-len(parts) // many)
    names = [row.name for row in max(parts, key=len) if row.name]
    top = 0.3 if names else GAP
    width, height = GAP + many * cell, top + lines * (SIDE + WORDS + GAP)
    with plain_settings():
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        FigureCanvasAgg(figure)
        if names:
            figure.text(
                GAP / width, 1 - 0.08 / height, shorten("from left to right: " + ", ".join(names), 120),
                fontproperties=fonts.properties(size=8), color=FAINT, va="top",
            )  # fmt: skip
        for i, group in enumerate(parts):
            x, y = GAP + (i % many) * cell, height - top - (i // many) * (SIDE + WORDS + GAP) - SIDE
            axes = [
                figure.add_axes(((x + k * (SIDE + 0.03)) / width, y / height, SIDE / width, SIDE / height))
                for k in range(1 + len(group))
            ]
            picture(axes[0], group[0], fonts)
            axes[0].set_title("", loc="left")
            for ax, row in zip(axes[1:], group, strict=False):
                heat(ax, row, row.alignment.similarity, limits[row.model], "", fonts)
            room = int(cell * 13)
            said = (isolated(shorten(group[0].title, room)), ", ".join(number(row) for row in group))
            for line, (text, ink) in enumerate(zip(said, (INK, FAINT), strict=True)):
                figure.text(
                    x / width,
                    (y - 0.05 - 0.17 * line) / height,
                    shorten(text, room),
                    fontproperties=fonts.properties(size=8),
                    language=language_of(text, group[0].lang),
                    color=ink,
                    va="top",
                )
    return figure


def number(row: Row) -> str:
    """What one number says of a row."""
    found = row.alignment
    if found.score is not None:
        return f"s = {found.score:.2f}".replace("-", "−")
    return f"{100 * found.share:.0f} % on the label"

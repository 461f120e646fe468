"""What a model finds of a text in a picture, as panels: the picture, the grid of m_k, the heat map, the tokens.

The middle panel is the papers' (FILIP §4.5, Wukong §5.4): in each patch's centre stands the index of the
text token that it matches best, red over the undimmed patch where that token belongs to the label, white
elsewhere. The right panel shows the mean similarity of the label's tokens, or whatever map the method makes; after
it may come a map of each token, and the same of further models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlcli.evaluation.alignment import Alignment
from vlcli.figures.canvas import plain_settings
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.figures.panels import (
    INK,
    PAPER,
    RED,
    ROOM,
    Row,
    columns,
    grid,
    grid_title,
    heat,
    heat_title,
    limits_of,
    picture,
    scale,
    shorten,
    token_title,
)
from vlcli.text.direction import after

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGE, SMALL = 3.3, 2.4  # inches of a panel's side: of three in a line, of more
GAP, BAR, SCALE = 0.16, 0.13, 0.75  # between panels; the scale; the scale with its numbers
LINE = 6  # panels side by side
LAYOUTS = ("rows", "sheet")
COLUMNS = 132  # of the token list: a Chinese character takes two


@dataclass(frozen=True)
class _Panel:
    """Something `width` inches wide and as high as a panel."""

    width: float
    paint: Callable[[Axes], None]


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that stand side by side: one of the first model, and those of the others after it."""
    found: list[list[Row]] = []
    for row in rows:
        if row.model == 0:
            found.append([])
        found[-1].append(row)
    return found


def draw(rows: Sequence[Row], *, fonts: Fonts | None = None) -> Figure:
    """A figure with the panels of each picture and text in a line, or in several where they are many.

    Raises NoFont naming a character that no font has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = fonts or find_fonts()
    require_glyphs(rows, fonts)
    limits = limits_of(rows)
    parts = groups(rows)
    side = LARGE if max(_count(group) for group in parts) <= 3 else SMALL
    head = 0.72 if any(row.name for row in rows) else 0.5
    with plain_settings():
        blocks = []  # (lines of panels, lines of tokens, inches for these) of each group
        for group in parts:
            strips = _strips(group)
            room = sum(0.26 + 0.24 * len(lines) for lines in strips) if strips else 0.2
            blocks.append((_lines(group, limits, side, fonts), strips, room))
        width = GAP + max(sum(p.width + GAP for p in line) for lines, _, _ in blocks for line in lines)
        height = sum(len(lines) * (head + side) + room for lines, _, room in blocks)
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        FigureCanvasAgg(figure)
        top = height
        for lines, strips, room in blocks:
            for line in lines:
                bottom, x = top - head - side, GAP
                for one in line:
                    across = BAR if one.width == SCALE else one.width
                    one.paint(figure.add_axes((x / width, bottom / height, across / width, side / height)))
                    x += one.width + (0 if one.width == SCALE else GAP)
                top = bottom
            y = top - 0.12
            for tokens in strips:
                _tokens(figure, tokens, GAP / width, y / height, fonts)
                y -= 0.26 + 0.24 * len(tokens)
            top -= room
    return figure


def require_glyphs(rows: Sequence[Row], fonts: Fonts) -> None:
    """NoFont, unless every character that a figure of `rows` may show has a glyph."""
    fonts.require(
        [row.caption + row.name + row.alignment.text.prompt + row.alignment.text.label for row in rows]
    )
    fonts.require([piece for row in rows for line in token_lines(row.alignment) for piece, _ in line])


def _count(group: Sequence[Row]) -> int:
    """Panels of a group, without scales."""
    return 1 + sum(1 + (row.alignment.index is not None) + len(row.alignment.parts) for row in group)


def _lines(
    group: Sequence[Row], limits: dict[int, tuple[float, float]], side: float, fonts: Fonts
) -> list[list[_Panel]]:
    size, room = (11.0, ROOM) if side == LARGE else (9.5, int(ROOM * SMALL / LARGE * 11 / 9.5))
    lines: list[list[_Panel]] = [[]]

    def add(paint: Callable[[Axes], None]) -> None:
        if sum(one.width == side for one in lines[-1]) == LINE:
            lines.append([])
        lines[-1].append(_Panel(side, paint))

    first = group[0]
    add(lambda ax: picture(ax, first, fonts, room=room, size=size))
    for row in group:
        found, name = row.alignment, shorten(row.name, room) + "\n" if row.name else ""
        if found.index is not None:
            title = name + grid_title(found, room + 4)
            add(lambda ax, row=row, title=title: grid(ax, row, title, fonts, inches=side, size=size))  # type: ignore[misc]
        maps = [(name + heat_title(found, room), found.similarity)]
        for part, one in enumerate(found.parts):
            maps.append((token_title(found, part), one))
        for title, shown in maps:
            add(
                lambda ax, row=row, title=title, shown=shown: heat(  # type: ignore[misc]
                    ax, row, shown, limits[row.model], title, fonts, size=size
                )
            )
        lines[-1].append(_Panel(SCALE, lambda ax, row=row: scale(ax, limits[row.model], fonts)))  # type: ignore[misc]
    return lines


def _strips(group: Sequence[Row]) -> list[list[list[tuple[str, bool]]]]:
    """The token lists under a group: what the indices of its grids count, once where models agree."""
    found = [token_lines(row.alignment) for row in group if row.alignment.index is not None]
    return [lines for i, lines in enumerate(found) if lines not in found[:i]]


def token_lines(alignment: Alignment) -> list[list[tuple[str, bool]]]:
    """`0 [CLS]`, `1 狐` …, each with whether it is the label's, broken into lines of a figure's width."""
    lines: list[list[tuple[str, bool]]] = [[]]
    used = 0
    for place, token in enumerate(alignment.text.tokens):
        piece = after(f"{place} ", token)
        room = columns(piece) + 3
        if used + room > COLUMNS and lines[-1]:
            lines.append([])
            used = 0
        lines[-1].append((piece, place in alignment.text.positions))
        used += room
    return lines


def _tokens(figure: Figure, lines: list[list[tuple[str, bool]]], x: float, y: float, fonts: Fonts) -> None:
    """The token list under the panels; what belongs to the label is red, as in the grid."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

    everything = "".join(piece for line in lines for piece, _ in line)
    rows: list[Any] = [
        HPacker(
            children=[
                TextArea(
                    piece,
                    textprops={
                        "fontproperties": fonts.properties(size=10.5),
                        "color": RED if on else INK,
                        "language": language_of(everything),
                    },
                )
                for piece, on in line
            ],
            align="baseline",
            pad=0,
            sep=12,
        )
        for line in lines
    ]
    box = AnchoredOffsetbox(
        loc="upper left",
        child=VPacker(children=rows, align="left", pad=0, sep=4),
        pad=0,
        borderpad=0,
        frameon=False,
        bbox_to_anchor=(x, y),
        bbox_transform=figure.transFigure,
    )
    figure.add_artist(box)

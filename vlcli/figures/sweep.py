"""A sweep drawn: a panel for each number, its mean and standard deviation along an axis of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlcli.figures.canvas import plain_settings
from vlcli.figures.curves import COLORS, INK
from vlcli.figures.fonts import find_fonts
from vlcli.training.sweep_table import USUAL, Line, Table, numeric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 6


def draw_sweep(table: Table, *, title: str = "") -> Figure:
    """Along the axis of most values that are numbers a line for each combination of the others; where no axis has
    numbers, a dot for each point of the grid. Of more than PANELS numbers the first ones.

    Raises NoFont for what no font can draw.
    """
    fonts = find_fonts()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    along = _along(table)
    columns = table.columns[:PANELS]
    names = [_shown(line, along) for line in table.lines]
    fonts.require(names)
    with plain_settings():
        wide = min(3, len(columns)) or 1
        high = -(-len(columns) // wide) or 1
        height = 3.4 if along else 1.2 + 0.3 * len(table.lines)
        figure = Figure(figsize=(4.6 * wide, height * high + 0.6), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(high, wide, squeeze=False).flat)
        several = len({evaluation for evaluation, _ in columns}) > 1
        for axes, column in zip(panels, columns, strict=False):
            evaluation, name = column
            shown = USUAL.get(name, name)
            axes.set_title(f"{evaluation}: {shown}" if several else shown, fontsize=10, color=INK, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            if along:
                _lines(axes, table, along, column)
            else:
                _dots(axes, table, column)
            for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
                label.set_fontproperties(fonts.properties(size=8))
            if (legend := axes.get_legend()) is not None:
                for text in legend.get_texts():
                    text.set_fontproperties(fonts.properties(size=8))
        for axes in panels[len(columns) :]:
            axes.set_axis_off()
        legible = "".join(c for c in title if fonts.covers(c))
        figure.suptitle(legible, fontproperties=fonts.properties(size=11), color=INK, x=0.01, ha="left")
    return figure


def _along(table: Table) -> str | None:
    """The axis of most values that are all numbers, at least two."""
    best: tuple[int, str] | None = None
    for axis in table.axes:
        values = list(dict.fromkeys(line.at[axis] for line in table.lines))
        if len(values) > 1 and numeric(values) is not None and (best is None or len(values) > best[0]):
            best = len(values), axis
    return best[1] if best else None


def _shown(line: Line, without: str | None) -> str:
    """`token-wise, 256`: its values on the other axes."""
    return ", ".join(value for axis, value in line.at.items() if axis != without) or "all"


def _lines(axes: Axes, table: Table, along: str, column: tuple[str, str]) -> None:
    groups: dict[str, list[Line]] = {}
    for line in table.lines:
        if line.cells[column].values:
            groups.setdefault(_shown(line, along), []).append(line)
    for (name, lines), color in zip(groups.items(), _colors(len(groups)), strict=True):
        ordered = sorted(lines, key=lambda line: float(line.at[along]))
        _bars(axes, [float(line.at[along]) for line in ordered], ordered, column, color=color, label=name)
    places = sorted({float(line.at[along]) for line in table.lines})
    if places[0] > 0 and places[-1] / places[0] >= 8:
        axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(along, fontsize=8)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    if len(groups) > 1:
        axes.legend(frameon=False, labelcolor=INK)


def _bars(
    axes: Axes,
    places: Sequence[float],
    lines: Sequence[Line],
    column: tuple[str, str],
    *,
    color: str,
    label: str,
) -> None:
    cells = [line.cells[column] for line in lines]
    axes.errorbar(
        places,
        [cell.mean for cell in cells],
        yerr=[cell.deviation or 0.0 for cell in cells],
        color=color,
        linewidth=1.4,
        marker="o",
        markersize=4,
        capsize=3,
        label=label,
    )


def _dots(axes: Axes, table: Table, column: tuple[str, str]) -> None:
    for place, line in enumerate(table.lines):
        cell = line.cells[column]
        if cell.values:
            axes.errorbar(
                [cell.mean],
                [place],
                xerr=[cell.deviation or 0.0],
                color=COLORS[0],
                marker="o",
                markersize=5,
                capsize=3,
            )
            axes.plot(
                list(cell.values.values()), [place] * len(cell.values), "|", color="#8a8a8a", markersize=8
            )
    axes.set_yticks(range(len(table.lines)), [_shown(line, None) for line in table.lines])
    axes.set_ylim(len(table.lines) - 0.5, -0.5)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]

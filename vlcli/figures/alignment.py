"""Word–patch alignment as a picture: the image, the grid of m_k, the heat map of the label, the tokens.

The middle panel is the papers' (FILIP §4.5, Wukong §5.4): in each patch's centre stands the index of the
text token that it matches best, red over the undimmed patch where that token belongs to the label, white
elsewhere. The right panel shows the mean similarity of the label's tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vlcli.evaluation.alignment import Alignment
from vlcli.figures.canvas import plain_settings
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.text.direction import after

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 3.3  # inches
RED, INK, PAPER = "#e4002b", "#1a1a1a", "#ffffff"
DIM = (
    0.62  # of black over the patches that are not on the label: white figures stay legible on white pictures
)
COLUMNS = 132  # of the token list: a Chinese character takes two


@dataclass(frozen=True)
class Row:
    """One row of a sheet: pixels (H, W, 3) uint8 as the model saw them, what it made of them, a caption."""

    pixels: npt.NDArray[np.uint8]
    alignment: Alignment
    caption: str = ""


def draw(rows: Sequence[Row], *, fonts: Fonts | None = None) -> Figure:
    """A figure with one row of three panels for each of `rows`.

    Raises NoFont naming a character that no font has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = fonts or find_fonts()
    lines = [token_lines(row.alignment) for row in rows]
    limits = _limits(rows)
    fonts.require([row.caption + row.alignment.text.prompt for row in rows])
    fonts.require([piece for row in lines for line in row for piece, _ in line])
    strips = [0.26 + 0.24 * len(line) for line in lines]  # inches below the panels, for the tokens
    head, gap = 0.5, 0.16
    with plain_settings():
        width = 3 * PANEL + 4 * gap + 0.75
        height = sum(head + PANEL + strip for strip in strips)
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        FigureCanvasAgg(figure)
        top = height
        for row, line, strip in zip(rows, lines, strips, strict=True):
            bottom = top - head - PANEL
            boxes = [
                ((gap + k * (PANEL + gap)) / width, bottom / height, PANEL / width, PANEL / height)
                for k in range(3)
            ]
            axes = [figure.add_axes(box) for box in boxes]
            _picture(axes[0], row, fonts)
            _grid(axes[1], row, fonts)
            image = _heat(axes[2], row, limits, fonts)
            bar = ((gap + 3 * (PANEL + gap)) / width, bottom / height, 0.13 / width, PANEL / height)
            _scale(figure.add_axes(bar), image, limits, fonts)
            _tokens(figure, line, gap / width, (bottom - 0.12) / height, fonts)
            top -= head + PANEL + strip
    return figure


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


def columns(text: str) -> int:
    """Width of a text in half-width cells."""
    return sum(_cells(c) for c in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def upsample(similarity: npt.NDArray[np.float32], side: int = 256) -> npt.NDArray[np.float32]:
    """(h, w) → (side, side), bilinear between the patches' centres."""
    grid = torch.from_numpy(np.ascontiguousarray(similarity))[None, None]
    return F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)[0, 0].numpy()


def _panel(ax: Axes, title: str, fonts: Fonts) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color("#999999")
    ax.set_title(
        title,
        fontproperties=fonts.properties(size=11),
        language=language_of(title),
        color=INK,
        loc="left",
        pad=5,
    )


def _show(ax: Axes, pixels: Any, **how: Any) -> Any:
    return ax.imshow(pixels, extent=(0, 1, 1, 0), interpolation="bilinear", **how)


def _picture(ax: Axes, row: Row, fonts: Fonts) -> None:
    _show(ax, row.pixels)
    _panel(ax, shorten(row.caption or row.alignment.text.label), fonts)


def _grid(ax: Axes, row: Row, fonts: Fonts) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    found = row.alignment
    h, w = found.index.shape
    _show(ax, row.pixels)
    size = max(4.0, min(15.0, 72 * PANEL / max(h, w) * 0.42))
    figure_font = fonts.properties(size=size)
    for r in range(h):
        for c in range(w):
            on = bool(found.on_label[r, c])
            shade = Rectangle(
                (c / w, r / h),
                1 / w,
                1 / h,
                facecolor="none" if on else (0, 0, 0, DIM),
                edgecolor=RED if on else (1, 1, 1, 0.25),
                linewidth=1.1 if on else 0.4,
                zorder=3 if on else 2,
            )
            ax.add_patch(shade)
            ax.text(
                (c + 0.5) / w,
                (r + 0.5) / h,
                str(int(found.index[r, c])),
                fontproperties=figure_font,
                color=RED if on else PAPER,
                ha="center",
                va="center_baseline",
                zorder=4,
                path_effects=[withStroke(linewidth=size / 5, foreground=PAPER if on else "#000000")],
            )
    count = int(found.on_label.sum())
    what = "word–patch" if found.layer is None else "looked at most by"
    _panel(ax, f"{what}: {count} of {found.index.size} on the label", fonts)


def _heat(ax: Axes, row: Row, limits: tuple[float, float], fonts: Fonts) -> Any:
    grey = row.pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    _show(ax, 0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1)
    low, high = limits
    image = _show(ax, upsample(row.alignment.similarity), cmap="viridis", vmin=low, vmax=high, alpha=0.62)
    layer = row.alignment.layer
    what = "similarity to" if layer is None else f"attention, layer {layer}:"
    _panel(ax, after(f"{what} ", shorten(row.alignment.text.label, 33 - columns(what))), fonts)
    return image


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """One scale for all rows, or a word that is nowhere would glow as much as one that is there.

    Flat maps get a little room, so that they show as flat.
    """
    low = min(float(row.alignment.similarity.min()) for row in rows)
    high = max(float(row.alignment.similarity.max()) for row in rows)
    return (low, high) if high - low > 1e-3 else (low - 0.01, high + 0.01)


def _scale(ax: Axes, image: Any, limits: tuple[float, float], fonts: Fonts) -> None:
    low, high = limits
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    extent = (0, 1, low, high)
    ax.imshow(ramp, aspect="auto", origin="lower", extent=extent, cmap=image.get_cmap(), alpha=0.85)
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ticks = np.linspace(low, high, 5)
    names = [f"{tick:.2f}".replace("-", "−") for tick in ticks]
    ax.set_yticks(ticks, names, fontproperties=fonts.properties(size=8))
    ax.tick_params(length=2, width=0.5, pad=2)
    for spine in ax.spines.values():
        spine.set_linewidth(0.5)


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


def shorten(text: str, room: int = 34) -> str:
    """At most `room` half-width cells, an ellipsis for the rest."""
    if columns(text) <= room:
        return text
    kept = ""
    for character in text:
        if columns(kept + character) > room - 1:
            break
        kept += character
    return kept + "…"

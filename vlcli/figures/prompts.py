"""The pictures of one prompt in several languages, as a grid: under each its language and its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlcli.figures.canvas import FORMATS, plain_settings, render
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.text.direction import isolated, runs_left

if TYPE_CHECKING:
    from PIL import Image

DPI = 100
SIDE, GAP, LINE = 192, 14, 17  # pixels: a picture as it is shown, the space between, a line of text
LINES = 3  # of a prompt
MOST = 64  # pictures of a grid
SIZE = 11 * 72 / DPI
INK, FAINT, PAPER, EDGE = "#1a1a1a", "#6e6e6e", "#ffffff", "#dcdcdc"


@dataclass(frozen=True)
class Drawn:
    """A picture, what was asked for, and in which language."""

    picture: Image.Image
    text: str
    lang: str | None


def prompt_grid(drawn: Sequence[Drawn], foot: str = "") -> dict[str, bytes]:
    """A PNG and an SVG, equal bytes for equal pictures and prompts; nine are three by three. `foot`: what stands below.

    Raises NoFont where there is no glyph for a character of a prompt.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    assert 0 < len(drawn) <= MOST, len(drawn)
    fonts = find_fonts()
    fonts.require([foot, *(one.text for one in drawn), *(one.lang or "" for one in drawn)])
    columns = math.ceil(math.sqrt(len(drawn)))
    rows = math.ceil(len(drawn) / columns)
    with plain_settings():
        measure = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()
        said = [wrapped(one.text, fonts, measure, SIDE) for one in drawn]
        below = wrapped(foot, fonts, measure, columns * (SIDE + GAP) - GAP) if foot else []
        under = 3 + LINE * (max(map(len, said)) + any(one.lang for one in drawn))
        cell = (SIDE + GAP, SIDE + under + GAP)
        whole = (columns * cell[0] + GAP, rows * cell[1] + 2 * GAP + LINE * len(below))
        figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI, facecolor=PAPER)

        def say(x: float, y: float, text: str, ink: str, lang: str | None) -> None:
            right = runs_left(text)
            figure.text(
                (x + (SIDE if right else 0)) / whole[0],
                1 - y / whole[1],
                text,
                fontproperties=fonts.properties(size=SIZE),
                language=language_of(text, lang),
                color=ink,
                va="top",
                ha="right" if right else "left",
            )

        for i, one in enumerate(drawn):
            x, y = GAP + (i % columns) * cell[0], GAP + (i // columns) * cell[1]
            axes = figure.add_axes(
                (x / whole[0], 1 - (y + SIDE) / whole[1], SIDE / whole[0], SIDE / whole[1])
            )
            axes.imshow(np.asarray(one.picture.convert("RGB")), interpolation="nearest")
            axes.set_axis_off()
            axes.add_patch(
                Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=EDGE, linewidth=0.72)
            )
            if one.lang:
                say(x, y + SIDE + 3, one.lang, FAINT, None)
            for number, line in enumerate(said[i]):
                say(x, y + SIDE + 3 + LINE * (number + bool(one.lang)), isolated(line), INK, one.lang)
        for number, line in enumerate(below):
            say(GAP, whole[1] - GAP - LINE * (len(below) - number), line, FAINT, None)
        return {kind: render(figure, kind, dpi=DPI) for kind in FORMATS}


def wrapped(text: str, fonts: Fonts, renderer: Any, width: float) -> list[str]:
    """The text in at most LINES lines of `width` pixels, broken between words where there are any; an ellipsis ends
    what does not fit."""
    font = fonts.properties(size=SIZE)

    def fits(line: str) -> bool:
        return bool(renderer.get_text_width_height_descent(line, font, False)[0] <= width)

    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < LINES:
        keep = len(rest)
        while keep > 1 and not fits(rest[:keep]):
            keep -= 1
        if keep < len(rest) and len(lines) == LINES - 1:
            while keep > 1 and not fits(rest[:keep] + "…"):
                keep -= 1
            return [*lines, rest[:keep].rstrip() + "…"]
        space = rest.rfind(" ", 0, keep + 1) if keep < len(rest) else -1
        cut = space if space > 0 else keep
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines or [""]

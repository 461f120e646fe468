"""The pictures of one prompt in several languages, as a grid: under each its language and its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlcli.figures.canvas import FORMATS, plain_settings, render
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.text.direction import isolated

if TYPE_CHECKING:
    from PIL import Image

DPI = 100
SIDE, GAP, LINE = 192, 14, 17  # pixels: a picture as it is shown, the space between, a line of text
LINES = 3  # of a prompt
FOOT = 22
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
    """A PNG and an SVG, the same bytes for equal pictures and prompts; nine are three by three. `foot`: a line below.

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
    cell = (SIDE + GAP, SIDE + (LINES + 1) * LINE + GAP)
    whole = (columns * cell[0] + GAP, rows * cell[1] + GAP + (FOOT if foot else 0))
    with plain_settings():
        figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI, facecolor=PAPER)
        measure = FigureCanvasAgg(figure).get_renderer()

        def say(x: float, y: float, text: str, ink: str, lang: str | None) -> None:
            right = lang == "ar"
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
            lines = wrapped(one.text, fonts, measure, SIDE, one.lang)
            for number, line in enumerate(lines):
                say(x, y + SIDE + 3 + LINE * (number + bool(one.lang)), isolated(line), INK, one.lang)
        if foot:
            say(
                GAP,
                whole[1] - FOOT,
                wrapped(foot, fonts, measure, whole[0] - 2 * GAP, None, 1)[0],
                FAINT,
                None,
            )
        return {kind: render(figure, kind, dpi=DPI) for kind in FORMATS}


def wrapped(
    text: str, fonts: Fonts, renderer: Any, width: float, lang: str | None, most: int = LINES
) -> list[str]:
    """The text in at most so many lines of `width` pixels, broken between words where there are any; an ellipsis ends
    what does not fit."""
    font = fonts.properties(size=SIZE)

    def fits(line: str) -> bool:
        return bool(renderer.get_text_width_height_descent(line, font, False)[0] <= width)

    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < most:
        keep = len(rest)
        while keep > 1 and not fits(rest[:keep]):
            keep -= 1
        if keep < len(rest) and len(lines) == most - 1:
            while keep > 1 and not fits(rest[:keep] + "…"):
                keep -= 1
            return [*lines, rest[:keep].rstrip() + "…"]
        space = rest.rfind(" ", 0, keep + 1) if keep < len(rest) else -1
        cut = space if space > 0 else keep
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines or [""]

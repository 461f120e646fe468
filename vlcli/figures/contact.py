"""A contact sheet of pairs: two pictures side by side, what stands between them, and their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlcli.figures.canvas import plain_settings, render
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.images.decode import decode

if TYPE_CHECKING:
    from PIL import Image

SIDE, GAP, LINE = 112, 8, 15  # pixels: a picture, the space between, a line of text
COLUMNS = 4  # pairs side by side
LINES = 3
DPI = 100
SIZE = 11 * 72 / DPI  # of the letters, in points
INK, FAINT, PAPER, EDGE = "#1a1a1a", "#6e6e6e", "#ffffff", "#dcdcdc"


@dataclass(frozen=True)
class Shown:
    """One pair: bytes of the picture that went and of the one that stands for it, their names, and a line in words."""

    left: Callable[[], bytes]
    right: Callable[[], bytes]
    names: tuple[str, str]
    said: str


def contact_sheet(pairs: Sequence[Shown]) -> bytes:
    """A PNG of the pairs, four in a row, in the order given. A picture that cannot be read is an empty frame, a
    character without a glyph a mark. Raises NoFont where there are no fonts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    fonts = find_fonts()
    width = 2 * SIDE + 3 * GAP
    height = SIDE + LINES * LINE + 2 * GAP
    rows = max(1, -(-len(pairs) // COLUMNS))
    whole = (COLUMNS * width, rows * height)
    with plain_settings():
        figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI, facecolor=PAPER)
        measure = FigureCanvasAgg(figure).get_renderer()
        for i, pair in enumerate(pairs):
            x, y = (i % COLUMNS) * width + GAP, (i // COLUMNS) * height + GAP
            for k, read in enumerate((pair.left, pair.right)):
                left = x + k * (SIDE + GAP)
                frame = (left + 0.5, whole[1] - y - SIDE + 0.5)
                figure.add_artist(
                    Rectangle(
                        frame, SIDE - 1, SIDE - 1, transform=None, fill=False, edgecolor=EDGE, linewidth=0.72
                    )
                )
                picture = _thumbnail(read)
                if picture is not None:
                    inset = [(SIDE - side) // 2 for side in picture.size]
                    bottom = whole[1] - (y + inset[1] + picture.height)
                    figure.figimage(np.asarray(picture.convert("RGB")), left + inset[0], bottom, zorder=1)
            for line, (text, ink) in enumerate(((pair.said, INK), *((name, FAINT) for name in pair.names))):
                shown = _fitted(fonts.drawable(text), fonts, measure, width - GAP)
                figure.text(
                    x / whole[0],
                    1 - (y + SIDE + 2 + line * LINE) / whole[1],
                    shown,
                    fontproperties=fonts.properties(size=SIZE),
                    language=language_of(shown),
                    color=ink,
                    va="top",
                )
    return render(figure, "png", dpi=DPI)


def _thumbnail(read: Callable[[], bytes]) -> Image.Image | None:
    try:
        picture = decode(read())
    except (ValueError, OSError):
        return None
    picture.thumbnail((SIDE, SIDE))
    return picture


def _fitted(text: str, fonts: Fonts, renderer: Any, width: int) -> str:
    """The text, or its two ends around an ellipsis where it is too long."""
    font = fonts.properties(size=SIZE)
    short, keep = text, len(text)
    while keep > 2 and renderer.get_text_width_height_descent(short, font, False)[0] > width:
        keep -= 1
        short = f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}"
    return short

"""A word cloud: the words of a corpus, the larger the more frequent, none over another [W Fig. 3].

Words stand upright and keep their distance, so that Chinese stays legible. The boxes that are kept apart are
those of the glyphs' outlines, and the outlines are what is drawn: no renderer's metrics come between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlcli.figures.canvas import plain_settings
from vlcli.figures.fonts import Fonts, find_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1600, 900  # units; 150 make an inch
SMALLEST = 14.0  # size of the font in units; a word that finds room only below it is left out
FILLED = 0.62  # of the area that the words' boxes are made to cover, when all find room
GAP = 5.0
SPOTS = 4000  # places tried for a word, the middle first
COLORS = ("#16425b", "#b23a48", "#2f6690", "#5f0f40", "#3a7d44", "#9a5b13", "#4a4e69")
INK = 100.0  # size at which outlines are measured


@dataclass(frozen=True)
class Word:
    """A word where it stands: `box` (x0, y0, x1, y1) of its outline, y upwards."""

    text: str
    size: float
    box: tuple[float, float, float, float]


def drawable(words: Sequence[tuple[str, int]], fonts: Fonts) -> list[tuple[str, int]]:
    """The words whose every letter has a glyph: one Thai word among a million must not cost the figure."""
    return [(word, count) for word, count in words if fonts.covers(word)]


def lay_out(words: Sequence[tuple[str, int]], fonts: Fonts, *, seed: int = 0) -> list[Word]:
    """`words` with their counts, the most frequent first, each put as near to the middle as there is room.

    The area of a word grows with its count. Equal words, font and seed give equal places.
    """
    with plain_settings():
        inks = [_outline(text, fonts).get_extents() for text, _ in words]
    most = max((count for _, count in words), default=1)
    shares = [math.sqrt(count / most) for _, count in words]
    area = sum((ink.width * share) * (ink.height * share) for ink, share in zip(inks, shares, strict=True))
    scale = math.sqrt(FILLED * WIDTH * HEIGHT / area) if area else 1.0
    # None is wider than half of the figure, or higher: the first sets the scale for all, a long one only its own.
    limits = [min(0.5 * WIDTH / ink.width, 0.4 * HEIGHT / ink.height) for ink in inks]
    scale = min([scale, *limits[:1]])
    rng = np.random.default_rng(seed)
    placed: list[Word] = []
    for (text, _), ink, share, limit in zip(words, inks, shares, limits, strict=True):
        factor = min(max(scale * share, SMALLEST / INK), limit)
        phase = rng.uniform(0, 2 * math.pi)
        while factor * INK >= 0.999 * SMALLEST:
            size = np.array([ink.width, ink.height]) * factor
            corner = _first_free(size, _spots(phase), [word.box for word in placed])
            if corner is not None:
                box = (*corner.tolist(), *(corner + size).tolist())
                placed.append(Word(text, factor * INK, box))
                break
            factor *= 0.9
    return placed


def _spots(phase: float) -> NDArray[np.float64]:
    """Points (SPOTS, 2) all over the figure, the middle first: a sunflower's seeds."""
    number = np.arange(SPOTS)
    radius, angle = np.sqrt(number / SPOTS), number * (math.pi * (3 - math.sqrt(5))) + phase
    # the circle round the figure's corners, drawn out to the figure's shape
    reach = math.sqrt(0.5) * np.array([WIDTH, HEIGHT])
    around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] * reach
    return around + np.array([WIDTH, HEIGHT]) / 2


def _first_free(
    size: NDArray[np.float64], spots: NDArray[np.float64], boxes: Sequence[tuple[float, float, float, float]]
) -> NDArray[np.float64] | None:
    """The lower left corner of the first place, in the order of `spots`, where a box of `size` is alone."""
    low, high = spots - size / 2, spots + size / 2
    free = np.all((low >= GAP) & (high <= np.array([WIDTH, HEIGHT]) - GAP), axis=1)
    if boxes:
        others = np.array(boxes)  # (placed, 4)
        apart = (high[:, None] + GAP <= others[None, :, :2]) | (low[:, None] >= others[None, :, 2:] + GAP)
        free &= np.all(np.any(apart, axis=2), axis=1)
    found = np.flatnonzero(free)
    return low[found[0]] if len(found) else None


def _outline(text: str, fonts: Fonts) -> Any:
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=INK, prop=fonts.properties())


def draw_cloud(words: Sequence[tuple[str, int]], *, seed: int = 0, fonts: Fonts | None = None) -> Figure:
    """A figure of `words` (word, count), the most frequent first; `seed` turns places and colours.

    Raises NoFont naming a character that no font has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch
    from matplotlib.transforms import Affine2D

    fonts = fonts or find_fonts()
    fonts.require(word for word, _ in words)
    placed = lay_out(words, fonts, seed=seed)
    colors = np.random.default_rng(seed).integers(len(COLORS), size=len(placed))
    with plain_settings():
        figure = Figure(figsize=(WIDTH / 150, HEIGHT / 150), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
        axes.set_axis_off()
        for word, color in zip(placed, colors, strict=True):
            outline = _outline(word.text, fonts)
            ink, factor = outline.get_extents(), word.size / INK
            there = Affine2D().translate(-ink.x0, -ink.y0).scale(factor).translate(*word.box[:2])
            path = there.transform_path(outline)
            axes.add_patch(PathPatch(path, facecolor=COLORS[color], linewidth=0))
    return figure

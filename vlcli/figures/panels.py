"""The panels of a figure: a picture, the grid of indices over it, a heat map over it, and the heat map's scale."""

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
from vlcli.figures.fonts import Fonts, language_of
from vlcli.text.direction import after, isolated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RED, INK, PAPER = "#e4002b", "#1a1a1a", "#ffffff"
DIM = (
    0.62  # of black over the patches that are not on the label: white figures stay legible on white pictures
)
HEAT, COLORS = 0.62, "viridis"  # opacity of a map over its picture
ROOM = 34  # half-width cells of a title over a panel of 3.3 inches

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """What one model makes of a text in a picture: pixels (H, W, 3) uint8 as the model saw them, a caption. A figure
    shows rows of further models (`model` > 0, with their `name`) beside the row of the first."""

    pixels: npt.NDArray[np.uint8]
    alignment: Alignment
    caption: str = ""
    model: int = 0
    name: str = ""
    lang: str | None = None

    @property
    def title(self) -> str:
        return self.caption or self.alignment.text.label

    @property
    def language(self) -> str | None:
        """Of the forms of the characters: the row's own, else what the text tells."""
        return language_of(self.title, self.lang)


def grid_title(found: Alignment, room: int = 60) -> str:
    """What stands over the grid of indices, as much of it as there is room for."""
    what = "word–patch: " if found.layer is None else "looked at most by: "
    share = f"{int(found.on_label.sum())} of {found.on_label.size} on the label"
    return what + share if len(what + share) <= room else share


def heat_title(found: Alignment, room: int = ROOM) -> str:
    """What stands over the map of the whole label; a map with a method says the score that it explains."""
    tail = "" if found.score is None else f", s = {found.score:.2f}".replace("-", "−")
    if found.method is not None:
        what = {"gradcam": "Grad-CAM:", "attention": "attention × gradient:"}.get(
            found.method, "self-attention:"
        )
    else:
        what = "similarity to" if found.layer is None else f"attention, layer {found.layer}:"
    return after(f"{what} ", shorten(found.text.label, max(4, room - 1 - columns(what + tail)))) + tail


def token_title(found: Alignment, part: int) -> str:
    """What stands over the map of the label's `part`-th token: its place in the text, and itself."""
    place = found.text.positions[part]
    return after(f"{place} ", found.text.tokens[place])


def limits_of(rows: Sequence[Row]) -> dict[int, tuple[float, float]]:
    """The scale of each model: one for all of its rows, or a word that is nowhere would glow as much as one that is
    there. Maps with a method run from 0 to 1. Flat maps get a little room, so that they show as flat.
    """
    limits = {}
    for model in dict.fromkeys(row.model for row in rows):
        own = [row.alignment for row in rows if row.model == model]
        maps = [one for found in own for one in (found.similarity, *found.parts)]
        low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
        if own[0].method is not None:
            low, high = 0.0, 1.0
        limits[model] = (low, high) if high - low > 1e-3 else (low - 0.01, high + 0.01)
    return limits


def columns(text: str) -> int:
    """Width of a text in half-width cells."""
    return sum(_cells(c) for c in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, room: int = ROOM) -> str:
    """At most `room` half-width cells, an ellipsis for the rest."""
    if columns(text) <= room:
        return text
    kept = ""
    for character in text:
        if columns(kept + character) > room - 1:
            break
        kept += character
    return kept + "…"


def upsample(similarity: Map, side: int = 256) -> Map:
    """(h, w) → (side, side), bilinear between the patches' centres."""
    grid = torch.from_numpy(np.ascontiguousarray(similarity))[None, None]
    return F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)[0, 0].numpy()


def faded(pixels: npt.NDArray[np.uint8]) -> Map:
    """(H, W) from 0.35 to 1: the grey picture that a map is laid on."""
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    return (0.35 + 0.65 * grey).astype(np.float32)


def ticks(limits: tuple[float, float]) -> list[tuple[float, str]]:
    """Five places of a scale and what stands at them."""
    return [(float(t), f"{t:.2f}".replace("-", "−")) for t in np.linspace(*limits, 5)]


def panel(ax: Axes, title: str, fonts: Fonts, *, size: float = 11, language: str | None = None) -> None:
    """Frame and title."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color("#999999")
    ax.set_title(
        title,
        fontproperties=fonts.properties(size=size),
        language=language_of(title, language),
        color=INK,
        loc="left",
        pad=5,
    )


def _show(ax: Axes, pixels: Any, **how: Any) -> Any:
    return ax.imshow(pixels, extent=(0, 1, 1, 0), interpolation="bilinear", **how)


def picture(ax: Axes, row: Row, fonts: Fonts, *, room: int = ROOM, size: float = 11) -> None:
    """The picture alone, with the caption over it."""
    _show(ax, row.pixels)
    panel(ax, isolated(shorten(row.title, room)), fonts, size=size, language=row.language)


def grid(ax: Axes, row: Row, title: str, fonts: Fonts, *, inches: float, size: float = 11) -> None:
    """In each patch the index of its token, red over the undimmed picture where it is the label's."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    found = row.alignment
    assert found.index is not None
    h, w = found.index.shape
    _show(ax, row.pixels)
    letters = max(4.0, min(15.0, 72 * inches / max(h, w) * 0.42))
    figure_font = fonts.properties(size=letters)
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
                path_effects=[withStroke(linewidth=letters / 5, foreground=PAPER if on else "#000000")],
            )
    panel(ax, title, fonts, size=size)


def heat(
    ax: Axes,
    row: Row,
    shown: Map,
    limits: tuple[float, float],
    title: str,
    fonts: Fonts,
    *,
    size: float = 11,
) -> None:
    """A map over the grey picture."""
    low, high = limits
    _show(ax, faded(row.pixels), cmap="gray", vmin=0, vmax=1)
    _show(ax, upsample(shown), cmap=COLORS, vmin=low, vmax=high, alpha=HEAT)
    panel(ax, title, fonts, size=size, language=row.language)


def scale(ax: Axes, limits: tuple[float, float], fonts: Fonts) -> None:
    """The colours of a map from the lowest to the highest."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    ax.imshow(ramp, aspect="auto", origin="lower", extent=(0, 1, *limits), cmap=COLORS, alpha=0.85)
    ax.set_xticks([])
    ax.yaxis.tick_right()
    places, names = zip(*ticks(limits), strict=True)
    ax.set_yticks(places, names, fontproperties=fonts.properties(size=8))
    ax.tick_params(length=2, width=0.5, pad=2)
    for spine in ax.spines.values():
        spine.set_linewidth(0.5)


def overlay(pixels: npt.NDArray[np.uint8], shown: Map, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """The same as pixels (H, W, 3) uint8, for where there is no matplotlib figure."""
    from matplotlib import colormaps

    low, high = limits
    side = pixels.shape[0]
    colors = colormaps[COLORS]((upsample(shown, side) - low) / (high - low))[..., :3]
    mixed = (1 - HEAT) * faded(pixels)[..., None] + HEAT * colors
    return (255 * mixed + 0.5).clip(0, 255).astype(np.uint8)

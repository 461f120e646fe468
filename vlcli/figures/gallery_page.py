"""How a gallery looks: a line of pictures and texts for each query, drawn by matplotlib or written as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vlcli.figures.canvas import plain_settings
from vlcli.figures.fonts import Fonts, find_fonts, language_of
from vlcli.figures.html import img, page, words
from vlcli.figures.panels import INK, PAPER, columns, shorten
from vlcli.images.decode import decode
from vlcli.text.direction import isolated, runs_left

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, GAP, UNDER, HEAD = 1.3, 0.14, 0.4, 0.24  # inches
PIXELS = 160  # of a picture
ROOM = 22  # half-width cells of a line of text in a cell
FAINT, GREEN, EDGE = "#6e6e6e", "#1a7f37", "#c9c9c9"


def headline(line: Any) -> str:
    """What stands over a query's line."""
    if line.rank is None:
        return "query and results, best first"
    way = "text → image" if line.query.image is None else "image → text"
    return f"{way}: the answer stands at rank {line.rank:,}; query, answer, then what stands first"


def number(item: Any) -> str:
    return "" if item.score is None else f"{item.score:.3f}".replace("-", "−")


def draw_gallery(gallery: Any) -> Figure:
    """A figure of `gallery`; see `Gallery.render`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = find_fonts()
    many = max(len(line.items) for line in gallery.lines)
    step = HEAD + SIDE + UNDER + GAP
    width, height = GAP + max(4, many) * (SIDE + GAP), 0.5 + len(gallery.lines) * step
    dpi = max(40, min(150, int(30_000 / height)))  # Agg draws at most 65,536 pixels
    with plain_settings():
        figure = Figure(figsize=(width, height), facecolor=PAPER, dpi=dpi)
        FigureCanvasAgg(figure)

        def say(text: str, x: float, y: float, ink: str = INK, size: float = 8) -> None:
            shown = fonts.drawable(text)
            figure.text(
                x / width, y / height, shown, fontproperties=fonts.properties(size=size),
                language=language_of(shown), color=ink, va="top",
            )  # fmt: skip

        say(gallery.title, GAP, height - 0.12, size=11)
        about = " · ".join(
            str(gallery.head[key]) for key in ("similarity", "checkpoint") if key in gallery.head
        )
        say(about, GAP + 1.9, height - 0.15, FAINT)
        top = height - 0.5
        for line in gallery.lines:
            say(headline(line), GAP, top, FAINT)
            for k, item in enumerate(line.items):
                x, y = GAP + k * (SIDE + GAP), top - HEAD - SIDE
                axes = figure.add_axes((x / width, y / height, SIDE / width, SIDE / height))
                _cell(axes, gallery, item, fonts, query=k == 0)
                below = [number(item)] if item.image is None else [number(item), item.text or ""]
                for row, text in enumerate(part for part in below if part):
                    say(isolated(shorten(text, ROOM)), x, y - 0.05 - 0.16 * row, FAINT if row == 0 else INK)
            top -= step
    return figure


def _cell(ax: Axes, gallery: Any, item: Any, fonts: Fonts, *, query: bool) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    edge, thick = (INK, 1.6) if query else (GREEN, 2.0) if item.right else (EDGE, 0.8)
    for spine in ax.spines.values():
        spine.set_color(edge)
        spine.set_linewidth(thick)
    if item.image is not None:
        pixels = thumbnail(gallery.pictures.get(item.sha256, b""))
        if pixels is not None:
            h, w = (side / max(pixels.shape[:2]) / 2 for side in pixels.shape[:2])
            ax.imshow(
                pixels, extent=(0.5 - w, 0.5 + w, 0.5 - h, 0.5 + h), interpolation="bilinear", aspect="auto"
            )
            ax.set_xlim(0, 1)
            ax.set_ylim(0, 1)
        return
    lines = wrapped(fonts.drawable(item.text or ""), ROOM - 4, 7)
    right = runs_left(item.text or "")
    ax.text(
        0.95 if right else 0.05, 0.95, "\n".join(isolated(one) for one in lines),
        fontproperties=fonts.properties(size=8), language=language_of(item.text or ""), color=INK, va="top",
        ha="right" if right else "left", linespacing=1.35,
    )  # fmt: skip


def thumbnail(content: bytes) -> Any:
    """(h, w, 3) uint8 with at most PIXELS a side; None for what does not decode."""
    try:
        picture = decode(content)
    except (ValueError, OSError):
        return None
    picture.thumbnail((PIXELS, PIXELS))
    return np.asarray(picture.convert("RGB"))


def wrapped(text: str, room: int, most: int) -> list[str]:
    """Lines of at most `room` half-width cells, broken at spaces where there are some; `most` of them, and an
    ellipsis."""
    lines: list[str] = []
    left = " ".join(text.split())
    while left and len(lines) < most:
        cut = len(left)
        while columns(left[:cut]) > room:
            cut -= 1
        if cut < len(left):
            space = left.rfind(" ", 1, cut + 1)
            cut = space if space > 0 else max(1, cut)
        lines.append(left[:cut].strip())
        left = left[cut:].strip()
    if left and lines:
        lines[-1] = shorten(lines[-1] + " " * room, room)
    return lines


def gallery_html(gallery: Any, data: bytes) -> bytes:
    """The gallery as one file that needs nothing else, a query below the other."""
    fonts = find_fonts()
    texts: list[str] = ["0123456789−."]
    sections = []
    for line in gallery.lines:
        cells = []
        for k, item in enumerate(line.items):
            kind = "query" if k == 0 else "right" if item.right else "wrong"
            text = fonts.drawable(item.text or "")
            texts.append(text)
            below = words(number(item), kind="faint") if item.score is not None else ""
            if item.image is not None:
                pixels = thumbnail(gallery.pictures.get(item.sha256, b""))
                inside = "" if pixels is None else img(pixels, item.image)
                below += words(text, lang=language_of(text)) if text else ""
                cells.append(f'<figure class="{kind}"><div>{inside}</div>{below}</figure>')
            else:
                inside = words(text, tag="p", lang=language_of(text), kind="words")
                cells.append(f'<figure class="{kind}">{inside}{below}</figure>')
        head = headline(line)
        texts.append(head)
        sections.append(f'{words(head, tag="div", kind="faint")}<div class="entry">{"".join(cells)}</div>')
    under = " · ".join(
        str(gallery.head[key]) for key in ("similarity", "checkpoint", "data") if key in gallery.head
    )
    return page(
        gallery.title,
        sections,
        texts,
        data,
        gallery.pictures,
        layout="list",
        under=fonts.drawable(under),
        fonts=fonts,
    )

"""A contact sheet of pairs: two pictures side by side, what stands between them, and their names."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlcli.figures.fonts import packaged_font
from vlcli.images.decode import decode

if TYPE_CHECKING:
    from PIL import Image, ImageFont

SIDE, GAP, LINE = 112, 8, 15  # pixels: a picture, the space between, a line of text
COLUMNS = 4  # pairs side by side
LINES = 3
INK, FAINT, PAPER, EDGE = (26, 26, 26), (110, 110, 110), (255, 255, 255), (220, 220, 220)


@dataclass(frozen=True)
class Shown:
    """One pair: bytes of the picture that went and of the one that stands for it, their names, and a line in words."""

    left: Callable[[], bytes]
    right: Callable[[], bytes]
    names: tuple[str, str]
    said: str


def contact_sheet(pairs: Sequence[Shown]) -> bytes:
    """A PNG of the pairs, four in a row, in the order given. A picture that cannot be read is an empty frame."""
    from PIL import Image, ImageDraw

    font = _font()
    width = 2 * SIDE + 3 * GAP
    height = SIDE + LINES * LINE + 2 * GAP
    rows = max(1, -(-len(pairs) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, pair in enumerate(pairs):
        x, y = (i % COLUMNS) * width + GAP, (i // COLUMNS) * height + GAP
        for k, read in enumerate((pair.left, pair.right)):
            place = (x + k * (SIDE + GAP), y)
            draw.rectangle((place[0], y, place[0] + SIDE - 1, y + SIDE - 1), outline=EDGE)
            picture = _thumbnail(read)
            if picture is not None:
                inset = [(SIDE - side) // 2 for side in picture.size]
                sheet.paste(picture, (place[0] + inset[0], y + inset[1]))
        for line, (text, ink) in enumerate(((pair.said, INK), *((name, FAINT) for name in pair.names))):
            shown = _fitted(text, font, width - GAP)
            draw.text((x, y + SIDE + 2 + line * LINE), shown, fill=ink, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _thumbnail(read: Callable[[], bytes]) -> Image.Image | None:
    try:
        picture = decode(read())
    except (ValueError, OSError):
        return None
    picture.thumbnail((SIDE, SIDE))
    return picture


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    file = packaged_font()
    return ImageFont.truetype(str(file), 11) if file is not None else ImageFont.load_default(11)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or its two ends around an ellipsis where it is too long."""
    short, keep = text, len(text)
    while keep > 2 and font.getlength(short) > width:
        keep -= 1
        short = f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}"
    return short

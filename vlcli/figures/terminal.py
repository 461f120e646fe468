"""A picture in a terminal: half blocks, two pixels a cell, which go through ssh and tmux as any text does."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

UPPER = "▀"


def half_blocks(png: bytes, width: int, height: int) -> Any:
    """A rich Text of the picture in at most `width` cells and `height` half lines."""
    from rich.style import Style
    from rich.text import Text

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    scale = min(width / picture.width, max(2, height) / picture.height, 1.0)
    size = (max(1, round(picture.width * scale)), max(2, round(picture.height * scale)))
    pixels = np.asarray(picture.resize((size[0], size[1] + size[1] % 2), Image.Resampling.BOX))
    text = Text(no_wrap=True)
    for top, bottom in zip(pixels[::2], pixels[1::2], strict=True):
        for a, b in zip(top, bottom, strict=True):
            text.append(UPPER, Style.parse(f"rgb({a[0]},{a[1]},{a[2]}) on rgb({b[0]},{b[1]},{b[2]})"))
        text.append("\n")
    return text

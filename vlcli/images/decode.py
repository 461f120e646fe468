"""Image bytes to RGB pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlcli.images.probe import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # Pillow's own bound: a quarter of a gigabyte in RGB


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """The first frame in RGB, transparency on white, EXIF orientation not applied.

    Raises ValueError for what is no image, is cut, or has more than `max_pixels` pixels (nothing is decoded
    then).
    """
    image, format = open_image(data)
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"too large: {width}×{height} pixels, more than {max_pixels:,}")
    try:
        image.load()
        return _rgb(image)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, EOFError, … on damaged data
        raise ValueError(
            f"damaged {format}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _rgb(image: Image) -> Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey: Pillow's own conversion clips at 255.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        from PIL import Image as pil

        rgba = image.convert("RGBA")
        white = pil.new("RGBA", rgba.size, (255, 255, 255, 255))
        return pil.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")

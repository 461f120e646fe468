"""Image bytes to RGB pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vlcli.images.probe import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # Pillow's own bound: a quarter of a gigabyte in RGB


class Loaded(NamedTuple):
    """A whole image. `image` is as its file has it: of any mode, and a JPEG perhaps reduced to 1/2, 1/4 or
    1/8, in which case `box` (left, upper, right, lower) is the part of it that shows something.
    """

    image: Image
    width: int  # of the image in full
    height: int
    box: tuple[float, float, float, float]


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """The first frame in RGB, transparency on white, EXIF orientation not applied.

    Raises ValueError for what is no image, is cut, or has more than `max_pixels` pixels (nothing is decoded
    then).
    """
    image, format = open_image(data)
    picture = rgb(load(image, format, max_pixels=max_pixels).image, format)
    return picture.copy() if picture is image else picture  # without the file that it came from


def load(
    image: Image, format: str, *, at_least: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Loaded:
    """Read every byte of an image that `open_image` has opened. Raises ValueError as `decode` does.

    `at_least`: the (width, height) that is needed. A JPEG is then decoded no larger than that takes: libjpeg
    computes 4 × 4, 2 × 2 or one pixel of each block of 8 × 8. It has to take in the whole stream all the
    same, so what is cut or damaged is found as ever.
    """
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"too large: {width}×{height} pixels, more than {max_pixels:,}")
    box = None
    try:
        if format == "jpg" and at_least is not None:
            box = image.draft(None, at_least)  # None: the mode as it is
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, EOFError, … on damaged data
        raise ValueError(f"damaged {format}: {_cause(error)}") from error
    if box is None:
        width, height = image.size  # Pillow turns a TIFF as its orientation says
        return Loaded(image, width, height, (0, 0, width, height))
    return Loaded(image, width, height, box[1])


def rgb(image: Image, format: str) -> Image:
    """A loaded image in RGB, transparency on white; itself, where it is that already."""
    try:
        return on_white(image)
    except Exception as error:  # a palette that is too short, for instance
        raise ValueError(f"damaged {format}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def on_white(image: Image) -> Image:
    """A loaded image in RGB, transparency on white; itself, where it is that already."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey: Pillow's own conversion clips at 255.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        from PIL import Image as pil

        rgba = image.convert("RGBA")
        white = pil.new("RGBA", rgba.size, (255, 255, 255, 255))
        return pil.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")

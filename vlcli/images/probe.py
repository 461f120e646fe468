"""Size and format of an image from its header, without decoding a pixel."""

from __future__ import annotations

import io
from typing import Any, NamedTuple


class Probe(NamedTuple):
    """As stored: EXIF orientation is not applied. `format` is jpg, png, webp, gif, bmp, tiff or avif."""

    width: int
    height: int
    format: str


def format_of(data: bytes) -> str | None:
    """The image format that the first bytes say, or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:2] == b"BM":
        return "bmp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return None


def open_image(data: bytes) -> tuple[Any, str]:
    """A Pillow image whose header has been read, and its format. Raises ValueError("not an image …").

    The format's own class is called: `Image.open` would try every plug-in, some of which start other
    programs, and would judge the size before we can.
    """
    format = format_of(data)
    if format is None:
        raise ValueError(f"not an image ({_describe(data)})")
    try:
        image = _plugin(format)(io.BytesIO(data))
        width, height = image.size
    except (
        Exception
    ) as error:  # Pillow's plug-ins raise SyntaxError, struct.error, OSError, … on damaged headers
        raise ValueError(
            f"not an image (damaged {format}: {' '.join(str(error).split()) or type(error).__name__})"
        ) from error
    if width < 1 or height < 1:
        raise ValueError(f"not an image ({format} of {width}×{height} pixels)")
    return image, format


def probe(data: bytes) -> Probe:
    """Width, height and format. Raises ValueError("not an image …")."""
    image, format = open_image(data)
    width, height = image.size
    return Probe(width, height, format)


def _plugin(format: str) -> Any:
    if format == "jpg":
        from PIL.JpegImagePlugin import JpegImageFile as plugin
    elif format == "png":
        from PIL.PngImagePlugin import PngImageFile as plugin  # type: ignore[assignment]
    elif format == "webp":
        from PIL.WebPImagePlugin import WebPImageFile as plugin  # type: ignore[assignment]
    elif format == "gif":
        from PIL.GifImagePlugin import GifImageFile as plugin  # type: ignore[assignment]
    elif format == "bmp":
        from PIL.BmpImagePlugin import BmpImageFile as plugin  # type: ignore[assignment]
    elif format == "tiff":
        from PIL.TiffImagePlugin import TiffImageFile as plugin  # type: ignore[assignment]
    else:
        from PIL.AvifImagePlugin import AvifImageFile as plugin  # type: ignore[assignment]
    return plugin


def _describe(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if not data:
        return "empty"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg")):
        return "a web page or XML"
    return "unknown format"

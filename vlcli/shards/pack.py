"""One image into its final bytes: decoded in full to know that it is good, kept as it is wherever that is
possible.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import orjson
from PIL import ExifTags, Image

from vlcli.images.decode import decode
from vlcli.images.probe import probe
from vlcli.shards.layout import IMAGE_EXTENSIONS

# How an image becomes another format; 95 is img2dataset's quality.
_SAVE: dict[str, tuple[str, dict[str, int]]] = {
    "jpg": ("JPEG", {"quality": 95}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 95}),
}


@dataclass(frozen=True)
class PackedImage:
    data: bytes
    extension: str
    width: int  # as stored
    height: int
    original_width: int
    original_height: int
    exif: str  # JSON object of the EXIF tags by name
    sha256: str  # of `data`


def pack_image(data: bytes, extension: str | None = None, resize: int | None = None) -> PackedImage:
    """Verify an image and give it the data set's one extension.

    `extension` None: the image's own, or jpg where shards do not hold that format. `resize`: the short side
    at most this many pixels; an image that is smaller stays as it is. Raises ValueError for what is no whole
    image.
    """
    header = probe(data)
    picture = decode(
        data
    )  # (height, width) RGB; reads every pixel, so a truncated file fails here and not in training
    width, height = picture.size
    if extension is None:
        extension = header.format if header.format in IMAGE_EXTENSIONS else "jpg"
    stored = data
    short = min(width, height)
    if resize is not None and short > resize:
        size = (max(1, round(width * resize / short)), max(1, round(height * resize / short)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        stored = _encode(picture, extension)
    elif header.format != extension:
        stored = _encode(picture, extension)
    return PackedImage(
        data=stored,
        extension=extension,
        width=picture.width,
        height=picture.height,
        original_width=width,
        original_height=height,
        exif=_exif(data),
        sha256=hashlib.sha256(stored).hexdigest(),
    )


def _encode(picture: Image.Image, extension: str) -> bytes:
    name, options = _SAVE[extension]
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def _exif(data: bytes) -> str:
    """The tags of the main EXIF directory as a JSON object of strings, "{}" where there are none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            tags = {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in image.getexif().items()}
    except Exception:  # a broken EXIF block does not make the picture bad, and Pillow raises anything on one
        return "{}"
    readable = {
        name: str(value).strip()[:1000] for name, value in tags.items() if not isinstance(value, bytes)
    }
    return orjson.dumps(readable, option=orjson.OPT_SORT_KEYS).decode()

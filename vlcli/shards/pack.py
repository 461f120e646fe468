"""One image into its final bytes: read to its end to know that it is good, kept as it is wherever that is
possible.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass

import orjson
from PIL import ExifTags, Image

from vlcli.images.decode import load, rgb
from vlcli.images.probe import open_image
from vlcli.images.resize import REDUCED, shrink
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
    image, format = open_image(data)
    exif = _exif(image) if format == "jpg" else _exif_of(data)
    if extension is None:
        extension = format if format in IMAGE_EXTENSIONS else "jpg"
    # Every byte is taken in, so that a truncated file fails here and not in training; how many pixels come of
    # it is another matter.
    target = _target(image.size, resize)
    if target is not None:
        needed = (math.ceil(target[0] * REDUCED), math.ceil(target[1] * REDUCED))
    else:
        needed = (1, 1) if format == extension else image.size
    loaded = load(image, format, at_least=needed)
    picture = rgb(loaded.image, format)
    stored, size = data, _target((loaded.width, loaded.height), resize)
    if size is not None:
        stored = _encode(shrink(picture, size, loaded.box), extension)
    elif format != extension:
        stored = _encode(picture, extension)
    width, height = size or (loaded.width, loaded.height)
    return PackedImage(
        data=stored,
        extension=extension,
        width=width,
        height=height,
        original_width=loaded.width,
        original_height=loaded.height,
        exif=exif,
        sha256=hashlib.sha256(stored).hexdigest(),
    )


def _target(size: tuple[int, int], resize: int | None) -> tuple[int, int] | None:
    """(width, height) with the short side at `resize`; None where it is no longer than that."""
    short = min(size)
    if resize is None or short <= resize:
        return None
    return max(1, round(size[0] * resize / short)), max(1, round(size[1] * resize / short))


def _encode(picture: Image.Image, extension: str) -> bytes:
    name, options = _SAVE[extension]
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def _exif_of(data: bytes) -> str:
    """As `_exif`, of an image opened for it alone: many formats have to load for their tags."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _exif(image)
    except Exception:
        return "{}"


def _exif(image: Image.Image) -> str:
    """The tags of the main EXIF directory as a JSON object of strings, "{}" where there are none."""
    try:
        tags = {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in image.getexif().items()}
    except Exception:  # a broken EXIF block does not make the picture bad, and Pillow raises anything on one
        return "{}"
    readable = {
        name: str(value).strip()[:1000] for name, value in tags.items() if not isinstance(value, bytes)
    }
    return orjson.dumps(readable, option=orjson.OPT_SORT_KEYS).decode()

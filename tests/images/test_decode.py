"""Headers and pixels: every format, every kind of transparency, every kind of damage."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from vlcli.images.decode import decode
from vlcli.images.probe import probe

FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tiff": "TIFF",
    "avif": "AVIF",
}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def saved(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, FORMATS[format], **options)
    return out.getvalue()


def available(format: str) -> bool:
    return format != "avif" or features.check("avif")


@pytest.mark.parametrize("format", [f for f in FORMATS if available(f)])
def test_every_format(format):
    data = saved(PICTURE, format)
    assert probe(data) == (30, 20, format)
    image = decode(data)
    assert (image.size, image.mode) == ((30, 20), "RGB")
    if format in ("png", "bmp", "tiff"):
        assert np.array_equal(np.asarray(image), np.asarray(PICTURE))


def test_orientation_is_left_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(PICTURE, "jpg", exif=exif)
    assert probe(data)[:2] == decode(data).size == (30, 20)


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
def test_a_bomb_is_measured_and_not_decoded():
    for width, height in ((9950, 9950), (60_000, 60_000), (2**31 - 1, 2**31 - 1)):
        assert probe(png(width, height)) == (width, height, "png")
        with pytest.raises(ValueError, match="too large"):
            decode(png(width, height))
    assert decode(saved(PICTURE, "png"), max_pixels=600).size == (30, 20)
    with pytest.raises(ValueError, match=r"too large: 30×20 pixels, more than 599$"):
        decode(saved(PICTURE, "png"), max_pixels=599)


def test_transparency_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    image = Image.fromarray(rgba)
    expected = [[(255, 0, 0), (127, 127, 127)], [(255, 255, 255), (255, 255, 255)]]
    for data in (saved(image, "png"), saved(image, "webp", lossless=True), saved(image, "tiff")):
        assert np.array_equal(np.asarray(decode(data)), np.array(expected))
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    for format in ("png", "gif"):
        found = decode(saved(palette, format, transparency=1))
        assert [found.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 255), (255, 255, 255)]
    grey = saved(Image.fromarray(np.array([[0, 77]], np.uint8)), "png", transparency=0)
    assert [decode(grey).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (77, 77, 77)]
    la = Image.merge("LA", (Image.new("L", (1, 1), 10), Image.new("L", (1, 1), 0)))
    assert decode(saved(la, "png")).getpixel((0, 0)) == (255, 255, 255)
    rgb = saved(Image.new("RGB", (1, 1), (1, 2, 3)), "png", transparency=(1, 2, 3))
    assert decode(rgb).getpixel((0, 0)) == (255, 255, 255)


def test_other_modes():
    assert decode(saved(Image.new("1", (3, 2), 1), "png")).getpixel((0, 0)) == (255, 255, 255)
    assert decode(saved(Image.new("L", (3, 2), 9), "jpg")).getpixel((0, 0)) == (9, 9, 9)
    assert decode(saved(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "tiff")).getpixel((0, 0)) == (0, 0, 0)
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    for format in ("png", "tiff"):
        assert [decode(saved(deep, format)).getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]
    frames = saved(Image.new("P", (4, 4), 0), "gif", save_all=True, append_images=[Image.new("P", (4, 4), 1)])
    assert decode(frames).size == (4, 4)


@pytest.mark.parametrize("data", [b"", b"x", b"<!DOCTYPE html><html>", b"<svg/>", b"%PDF-1.7", b"%!PS-Adobe"])
def test_what_is_no_image(data):
    with pytest.raises(ValueError, match=r"^not an image"):
        probe(data)
    with pytest.raises(ValueError, match=r"^not an image"):
        decode(data)


@pytest.mark.parametrize("format", [f for f in FORMATS if available(f)])
@pytest.mark.filterwarnings("ignore")
def test_every_prefix_is_an_error_or_the_picture(format):
    data = saved(PICTURE, format)
    whole = np.asarray(decode(data))
    for size in range(len(data)):
        try:
            found = probe(data[:size])
        except ValueError:
            found = None
        assert found in (None, (30, 20, format))
        try:
            image = decode(data[:size])
        except ValueError:
            continue
        assert np.array_equal(np.asarray(image), whole)  # only what follows the pixels is missing


FIXED = [saved(PICTURE, f) for f in FORMATS if available(f)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIXED), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
@pytest.mark.filterwarnings("ignore")
def test_damage_is_a_value_error_or_a_picture(data, changes):
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    for read in (probe, lambda d: decode(d, max_pixels=1 << 20)):
        try:
            read(bytes(damaged))
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017

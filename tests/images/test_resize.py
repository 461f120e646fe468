"""Smaller pictures: against a cubic filter in floating point, on any processor, and from JPEGs decoded at less."""

from __future__ import annotations

import io
import math
import random
import sys

import numpy as np
import pytest
from cykooz_resizer import CpuExtensions, CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from vlcli.images.decode import load, rgb
from vlcli.images.probe import open_image
from vlcli.images.resize import REDUCED, shrink

RNG = np.random.default_rng(1)


def picture(width: int, height: int, noise: float = 6) -> Image.Image:
    """Waves of many lengths and some noise: more like a photograph than noise alone."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x * a + y * b) / c) for a, b, c in ((1, 2, 9), (3, -1, 31), (1, 1, 3), (0, 1, 70))]
    grey = 128 + 25 * sum(waves)
    colours = np.stack([grey, 255 - grey, grey * 0.6 + 30], axis=2) + RNG.normal(0, noise, (height, width, 3))
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


def literal(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Keys's cubic with a = -1/2, widened by the factor, in float64: (height, width, 3)."""

    def weights(n: int, m: int, low: float, high: float) -> np.ndarray:
        scale = (high - low) / m
        centres = low + (np.arange(m)[:, None] + 0.5) * scale
        x = np.abs(np.arange(n) + 0.5 - centres) / max(scale, 1)  # (m, n)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        found = np.where(x < 1, near, np.where(x < 2, far, 0))
        return found / found.sum(1, keepdims=True)

    across = weights(image.width, size[0], box[0], box[2])
    down = weights(image.height, size[1], box[1], box[3])
    return np.einsum("ab,bcd,ec->aed", down, np.asarray(image, np.float64), across, optimize=True).clip(
        0, 255
    )


CASES = [
    ((64, 48), (34, 26), None),
    ((101, 37), (40, 15), None),
    ((33, 60), (33, 20), None),
    ((51, 41), (20, 16), (0, 0, 50.5, 40.5)),
    ((200, 3), (66, 1), None),
]


@pytest.mark.parametrize(("size", "target", "box"), CASES)
def test_cubic(size, target, box) -> None:
    image = picture(*size)
    box = box or (0, 0, *size)
    expected, found = literal(image, target, box), shrink(image, target, box)
    assert found.size == target
    assert np.abs(np.asarray(found) - expected).max() < 2  # rounded twice


@pytest.mark.parametrize(("size", "target", "box"), CASES)
def test_equal_bytes_without_vector_instructions(size, target, box) -> None:
    image = picture(*size)
    left, upper, right, lower = box = box or (0, 0, *size)
    plain = Resizer()
    plain.cpu_extensions = CpuExtensions.none
    small = Image.new("RGB", target)
    alg = ResizeAlg.convolution(FilterType.catmull_rom)
    plain.resize_pil(
        image, small, ResizeOptions(alg, crop_box=CropBox(left, upper, right - left, lower - upper))
    )
    assert small.tobytes() == shrink(image, target, box).tobytes()


def test_without_the_package_pillow_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(90, 70)
    fast = np.asarray(shrink(image, (45, 35), (0, 0, 90, 70)), int)
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    slow = shrink(image, (45, 35), (0, 0, 90, 70))
    assert slow.tobytes() == image.resize((45, 35), Image.Resampling.BICUBIC).tobytes()
    assert np.abs(np.asarray(slow, int) - fast).max() <= 4


def test_a_picture_of_many_blocks_of_memory() -> None:
    """Pillow keeps large pictures in pieces of 16 MB."""
    tile = picture(256, 256)
    image = Image.new("RGB", (5120, 4096))
    for x in range(0, 5120, 256):
        for y in range(0, 4096, 256):
            image.paste(tile, (x, y))
    found = np.asarray(shrink(image, (640, 512), (0, 0, 5120, 4096)))
    blocks = found.reshape(16, 32, 20, 32, 3)[1:-1, :, 1:-1]
    assert (blocks == blocks[:1, :, :1]).all()  # every tile alike, but for those at the edge


def jpeg(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def full_and_reduced(data: bytes, at_least: tuple[int, int]):
    """What a decoder in full and a reducing one say: pictures, or what is wrong."""
    found = []
    for needed in (None, at_least):
        try:
            image, format = open_image(data)
            loaded = load(image, format, at_least=needed)
            found.append((loaded.width, loaded.height, rgb(loaded.image, format)))
        except ValueError as error:
            found.append(str(error))
    return found


PICTURE = picture(43, 37)
KINDS = {
    "baseline": jpeg(PICTURE),
    "4:4:4": jpeg(PICTURE, subsampling=0),
    "progressive": jpeg(PICTURE, progressive=True),
    "restart markers": jpeg(PICTURE, restart_marker_blocks=2),
    "grey": jpeg(PICTURE.convert("L")),
    "CMYK": jpeg(PICTURE.convert("CMYK")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_reducing_finds_every_cut(kind: str) -> None:
    """Cut at every byte: the same error as in full, word for word, or none where nothing but the end mark is
    gone.
    """
    data = KINDS[kind]
    whole, small = full_and_reduced(data, (1, 1))
    assert (whole[:2], whole[2].size) == ((43, 37), (43, 37))
    assert (small[:2], small[2].size) == ((43, 37), (6, 5))
    errors = 0
    for length in range(len(data)):
        for at_least in ((1, 1), (10, 9), (20, 18)) if length % 8 == 0 else ((1, 1),):
            full, reduced = full_and_reduced(data[:length], at_least)
            assert isinstance(full, str) == isinstance(reduced, str), length
            if isinstance(full, str):
                # How many bytes were still waiting in the decoder is the one thing that differs.
                assert full.partition("(")[0] == reduced.partition("(")[0], length
                errors += 1
    assert errors > len(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_reducing_judges_damage_alike(kind: str) -> None:
    """Bytes changed, lost or added anywhere: an error in full is one here, and the other way round."""
    data, rng = KINDS[kind], random.Random(5)
    for _ in range(500):
        damaged, at = bytearray(data), rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            damaged[at : at + rng.randrange(1, 30)] = b""
        elif what == 2:
            damaged[at:at] = rng.randbytes(rng.randrange(1, 5))
        else:
            damaged[at : at + 40] = bytes(40)
        full, reduced = full_and_reduced(bytes(damaged), (1, 1))
        assert isinstance(full, str) == isinstance(reduced, str), (what, at, full, reduced)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 243), (163, 511)])
@pytest.mark.parametrize("factor", [1.75, 2.5, 3.5, 4, 7, 14])
def test_from_a_reduced_jpeg_as_from_the_whole(width: int, height: int, factor: float) -> None:
    """No loss that shows, and no shift, though a reduced picture covers more than a whole one of odd sides."""
    data = jpeg(picture(width, height), quality=95)
    size = (round(width / factor), round(height / factor))
    image, format = open_image(data)
    loaded = load(image, format, at_least=(math.ceil(size[0] * REDUCED), math.ceil(size[1] * REDUCED)))
    picture_, box = rgb(loaded.image, format), loaded.box
    whole = literal(Image.open(io.BytesIO(data)), size, (0, 0, width, height))

    def likeness(box: tuple[float, float, float, float]) -> float:
        """In dB."""
        return 10 * math.log10(
            255**2 / ((np.asarray(shrink(picture_, size, box), float) - whole) ** 2).mean()
        )

    assert likeness(box) > 38
    if picture_.width < width:
        assert likeness((0.5, 0.5, box[2], box[3])) < likeness(box) - 3

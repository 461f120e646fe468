"""Augmented pixels against torchvision's own transforms of the same part; draws depend on the generator alone."""

from __future__ import annotations

import io
import math
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vlcli.images.augment import RATIO, Augment, resized_crop, window
from vlcli.images.preprocess import Preprocess, PreprocessConfig

CUBIC = v1.InterpolationMode.BICUBIC
NAMES = ("none", "autoaugment", "crop-flip", "resized-crop")


def picture(width: int, height: int) -> Image.Image:
    """Slopes and waves, which survive a JPEG."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + y / 31), np.sin(x / 4 - y / 15), np.cos((x + y) / 23)], axis=2)
    return Image.fromarray((127 + 100 * waves).astype(np.uint8))


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def augment(name: str, size: int = 32, **options) -> Augment:
    return Augment(name, Preprocess(PreprocessConfig(size=size)), **options)


class Fixed(random.Random):
    """Draws that a test has chosen."""

    def __init__(self, integers=(), floats=()):
        super().__init__(0)
        self.integers, self.floats = list(integers), list(floats)

    def randint(self, low, high):
        value = self.integers.pop(0)
        assert low <= value <= high
        return value

    def random(self):
        return self.floats.pop(0) if self.floats else 0.9


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("width", "height"), [(120, 80), (90, 150), (38, 38)])
def test_crop_flip_is_resize_then_crop(width, height, flip):
    data = saved(picture(width, height))
    got = augment("crop-flip")(data, Fixed([0, 0], [0.1 if flip else 0.9])).astype(int)
    resized = v1.Resize(38, CUBIC)(picture(width, height))
    want = np.asarray(resized.crop((0, 0, 32, 32))).astype(int)
    assert np.abs(got - (want[:, ::-1] if flip else want)).max() <= 2


def test_a_part_by_area_is_crop_and_resize():
    """But at its edge, where ours goes on to see what lies beyond it."""
    data = saved(picture(200, 150))
    draws = random.Random(5)
    box = resized_crop((200, 150), (0.3, 0.8), draws)
    flip = draws.random() < 0.5
    got = augment("resized-crop", area=(0.3, 0.8))(data, random.Random(5)).astype(int)
    left, upper, right, lower = (int(side) for side in box)
    want = F.resized_crop(
        picture(200, 150),
        upper,
        left,
        lower - upper,
        right - left,
        [32, 32],
        interpolation=v2.InterpolationMode.BICUBIC,
    )
    want = np.asarray(want).astype(int)
    want = want[:, ::-1] if flip else want
    assert np.abs(got - want)[3:-3, 3:-3].max() <= 1


@given(st.integers(1, 700), st.integers(1, 700), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 1000))
def test_a_part_by_area_lies_inside(width, height, low, span, seed):
    area = (low, min(1.0, low + span))
    left, upper, right, lower = resized_crop((width, height), area, random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


def test_parts_have_the_areas_and_ratios_asked_for():
    draws = random.Random(1)
    found = [resized_crop((1000, 1000), (0.2, 0.5), draws) for _ in range(2000)]
    areas = [(r - x) * (b - y) / 1e6 for x, y, r, b in found]
    ratios = [(r - x) / (b - y) for x, y, r, b in found]
    assert 0.199 < min(areas) < 0.21
    assert 0.49 < max(areas) < 0.501
    assert abs(np.mean(areas) - 0.35) < 0.01
    assert RATIO[0] - 0.01 < min(ratios) < RATIO[0] + 0.02
    assert abs(np.mean([math.log(ratio) for ratio in ratios])) < 0.02
    assert {min(x for x, *_ in found) < 20, max(r for _, _, r, _ in found) > 980} == {True}


def test_where_no_draw_fits_the_middle_is_taken():
    assert resized_crop((100, 1), (1.0, 1.0), random.Random(0)) == (49, 0, 50, 1)
    assert resized_crop((10, 100), (1.0, 1.0), random.Random(0)) == (0, 43, 10, 56)


@pytest.mark.parametrize("size", [(1, 60_000), (50_000, 2), (1, 1)])
def test_threads_of_pictures_cost_no_memory(size):
    data = saved(Image.new("RGB", size))
    for name in NAMES:
        assert augment(name)(data, random.Random(0)).shape == (32, 32, 3)


@pytest.mark.parametrize("name", NAMES)
def test_in_a_worker_the_same_and_of_the_generator_alone(name):
    one = augment(name)
    other = pickle.loads(pickle.dumps(one))
    data = saved(picture(64, 48))
    before = torch.get_rng_state()
    assert np.array_equal(one(data, random.Random("0/1/x")), other(data, random.Random("0/1/x")))
    assert torch.equal(torch.get_rng_state(), before)
    drawn = {one(data, random.Random(seed)).tobytes() for seed in range(8)}
    assert len(drawn) == 1 if name == "none" else len(drawn) > 3


@pytest.mark.parametrize("name", NAMES)
def test_every_mode_and_damage(name):
    run = augment(name)
    for mode in ("L", "P", "RGBA", "1", "LA"):
        assert run(saved(picture(40, 30).convert(mode)), random.Random(0)).shape == (32, 32, 3)
    jpeg = saved(picture(400, 300), "JPEG")
    assert run(jpeg, random.Random(0)).shape == (32, 32, 3)
    for broken in (b"", b"no image", jpeg[: len(jpeg) // 2]):
        with pytest.raises(ValueError, match=r"not an image|damaged jpg"):
            run(broken, random.Random(0))


def test_none_is_the_preprocessing_and_autoaugment_near_it_before_its_policy():
    data = saved(picture(200, 150))
    for fit in ("crop", "squash"):
        preprocess = Preprocess(PreprocessConfig(size=32, fit=fit))
        want = np.asarray(preprocess.resize(picture(200, 150)))
        assert np.array_equal(Augment("none", preprocess)(data, random.Random(0)), want)
        near = np.asarray(Augment("autoaugment", preprocess)._plain(data)).astype(int)
        assert np.abs(near - want.astype(int)).max() <= 2


def test_a_turned_tiff_is_cut_as_it_will_be_seen():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = saved(picture(60, 30), "TIFF", exif=exif)
    got = augment("crop-flip")(data, Fixed([0, 0])).astype(int)
    upright = picture(60, 30).transpose(Image.Transpose.ROTATE_270)
    want = np.asarray(v1.Resize(38, CUBIC)(upright).crop((0, 0, 32, 32))).astype(int)
    assert np.abs(got - want).max() <= 2


def test_a_large_jpeg_is_decoded_reduced_and_looks_the_same():
    """As `shard --resize` does it: at 1/2 only where it is still 1.75 times too large."""
    large = picture(640, 480)
    data = saved(large, "JPEG", quality=95)
    got = augment("resized-crop", area=(1.0, 1.0))(data, Fixed([0, 0], [0.0, 0.5, 0.9])).astype(float)
    exact = augment("resized-crop", area=(1.0, 1.0))(
        saved(Image.open(io.BytesIO(data))), Fixed([0, 0], [0.0, 0.5, 0.9])
    ).astype(float)
    error = ((got - exact) ** 2).mean()
    assert 0 < error < 255**2 / 10**4  # 40 dB


def test_windows():
    assert window((640, 480), 224, 224, lambda room: room // 2) == pytest.approx(
        (37 * 640 / 298, 0, (37 + 224) * 640 / 298, 480)
    )
    assert window((8, 8), 32, 38, lambda room: room) == pytest.approx((6 * 8 / 38, 6 * 8 / 38, 8, 8))

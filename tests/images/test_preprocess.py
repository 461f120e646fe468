"""Preprocessing against torchvision, open_clip, cn-clip and transformers, and against a literal bicubic filter."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from vlcli.images.decode import MAX_PIXELS, decode
from vlcli.images.preprocess import Preprocess, PreprocessConfig, middle

SIZES = [(1, 1), (1, 250), (1000, 4), (3, 5), (224, 224), (223, 225), (225, 224), (333, 500), (2, 501)]
# One unit in the last place of a normalised value (|x| < 4): 255 divides here and is multiplied by there.
LAST_PLACE = 4.8e-7
CONFIGS = {fit: PreprocessConfig(size=224, fit=fit) for fit in ("crop", "squash")}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def torchvision(fit: str, *end):
    cubic = v1.InterpolationMode.BICUBIC
    if fit == "crop":
        return v1.Compose([v1.Resize(224, cubic), v1.CenterCrop(224), *end])
    return v1.Compose([v1.Resize((224, 224), cubic), *end])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_equals_torchvision_to_the_bit_and_the_others_to_the_last_place(fit, size):
    from cn_clip.clip.utils import image_transform
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config, picture = CONFIGS[fit], noise(*size)
    ours = Preprocess(config)(picture)
    assert (ours.shape, ours.dtype) == ((3, 224, 224), torch.float32)
    last = v2.Normalize(list(config.mean), list(config.std))
    modern = torchvision(fit, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), last)
    assert torch.equal(ours, modern(picture).as_subclass(torch.Tensor))
    mode = {"crop": "shortest", "squash": "squash"}[fit]
    others = [
        torchvision(fit, v1.ToTensor(), v1.Normalize(config.mean, config.std)),
        image_transform_v2(
            PreprocessCfg(size=224, resize_mode=mode, interpolation="bicubic"), is_train=False
        ),
    ]
    if fit == "squash":  # what Chinese-CLIP was trained and is evaluated with
        others.append(image_transform(224))
    for other in others:
        assert (ours - other(picture)).abs().max() <= LAST_PLACE


@pytest.mark.parametrize("size", [(3, 5), (223, 225), (333, 500)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_equals_transformers_on_pillow_and_nearly_on_tensors(fit, size):
    """transformers' CLIP and ChineseCLIP processors: their Pillow back ends are ours to the last place. Their default
    back end filters tensors: one grey level off in a crop, more in a squash that shrinks one side only."""
    from transformers import ChineseCLIPImageProcessor, CLIPImageProcessor
    from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
        ChineseCLIPImageProcessorPil,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config, picture = CONFIGS[fit], noise(*size)
    ours = Preprocess(config)(picture)
    square = {"height": 224, "width": 224}
    settings = {"do_center_crop": fit == "crop", "crop_size": square}
    settings["size"] = {"shortest_edge": 224} if fit == "crop" else square
    for kind in (CLIPImageProcessorPil, ChineseCLIPImageProcessorPil):
        theirs = kind(**settings)(picture, return_tensors="pt")["pixel_values"][0]
        assert (ours - theirs).abs().max() <= LAST_PLACE
    level = 1 / 255 / min(config.std)
    for kind in (CLIPImageProcessor, ChineseCLIPImageProcessor):
        theirs = kind(**settings)(picture, return_tensors="pt")["pixel_values"][0]
        if fit == "crop":
            assert (ours - theirs).abs().max() <= 1.01 * level
        assert (ours - theirs).abs().mean() <= 0.01


def cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def literal_resize(line: list[float], size: int) -> list[float]:
    """Keys' cubic, widened by the factor of a reduction (that is the anti-aliasing), cut and renormalised at ends."""
    scale = len(line) / size
    wide = max(scale, 1.0)
    out = []
    for place in range(size):
        centre = (place + 0.5) * scale
        weights = {k: cubic((k + 0.5 - centre) / wide) for k in range(len(line))}
        inside = {
            k: w
            for k, w in weights.items()
            if int(centre - 2 * wide + 0.5) <= k < int(centre + 2 * wide + 0.5)
        }
        total = sum(inside.values())
        value = sum(w * line[k] for k, w in inside.items()) / total
        out.append(min(255.0, max(0.0, math.floor(value + 0.5))))
    return out


@pytest.mark.parametrize("size", [(3, 5), (20, 30), (31, 8), (8, 8), (1, 4)])
def test_the_filter_is_a_widened_cubic_first_across_and_then_down(size):
    picture = noise(*size, seed=1)
    got = np.asarray(Preprocess(PreprocessConfig(size=8, fit="squash")).resize(picture)).astype(int)
    for channel in range(3):
        plane = np.asarray(picture)[..., channel].astype(float)
        across = [literal_resize(list(row), 8) for row in plane]
        down = np.array([literal_resize(list(column), 8) for column in np.array(across).T]).T
        # Pillow's weights are integers of 22 bits: a value near one half may round the other way.
        assert np.abs(got[..., channel] - down).max() <= 1
        assert (got[..., channel] != down).mean() < 0.02


@pytest.mark.parametrize(("width", "height"), [(8, 8), (11, 8), (8, 13), (12, 8), (9, 8)])
def test_the_crop_is_the_middle(width, height):
    picture = noise(width, height)
    left, top = (
        round((width - 8) / 2),
        round((height - 8) / 2),
    )  # a half goes to the even side, as in torchvision
    got = np.asarray(Preprocess(PreprocessConfig(size=8, fit="crop")).resize(picture))
    assert np.array_equal(got, np.asarray(picture)[top : top + 8, left : left + 8])


def in_modes(picture: Image.Image) -> dict[str, tuple[bytes, np.ndarray, int]]:
    """Bytes of a picture in every mode, the RGB they mean, and how many grey levels Pillow's rounding may be off."""
    rgb = np.asarray(picture).astype(float)
    grey = np.asarray(picture.convert("L"))
    three = np.repeat(grey[..., None], 3, 2).astype(float)
    alpha = np.asarray(noise(*picture.size, seed=9))[..., 0]
    on_white = lambda colour: colour * alpha[..., None] / 255 + 255 - alpha[..., None]  # noqa: E731
    with_alpha = Image.fromarray(np.dstack([np.asarray(picture), alpha]))
    few = picture.quantize(16)
    palette = np.array(few.getpalette()).reshape(-1, 3)[np.asarray(few)].astype(float)
    seen = np.where((np.asarray(few) == 3)[..., None], 255.0, palette)
    cmyk = np.asarray(Image.fromarray(np.dstack([np.asarray(picture), alpha]), "CMYK")).astype(float)
    ink = (255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255
    deep = grey.astype(np.uint16) * 257
    bits = np.asarray(picture.convert("1"))
    ycc = picture.convert("YCbCr")
    la = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    return {
        "RGB": (saved(picture), rgb, 0),
        "L": (saved(Image.fromarray(grey)), three, 0),
        "LA": (saved(la), on_white(three), 1),
        "RGBA": (saved(with_alpha), on_white(rgb), 1),
        "P": (saved(few), palette, 0),
        "P with transparency": (saved(few, transparency=3), seen, 0),
        "CMYK": (saved(Image.fromarray(cmyk.astype(np.uint8), "CMYK"), "TIFF"), ink, 1),
        "I;16": (saved(Image.fromarray(deep)), three, 0),
        "1": (saved(Image.fromarray(bits)), np.repeat(bits[..., None] * 255.0, 3, 2), 0),
        "YCbCr": (saved(ycc, "TIFF"), np.asarray(ycc.convert("RGB")).astype(float), 1),
    }


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 17), (1, 60)])
def test_every_mode_means_its_colours(size):
    for mode, (data, want, levels) in in_modes(noise(*size)).items():
        got = np.asarray(decode(data)).astype(float)
        assert got.shape == want.shape, mode
        assert np.abs(got - want).max() <= levels, mode
        assert Preprocess(CONFIGS["crop"])(decode(data)).isfinite().all(), mode


@pytest.mark.parametrize("size", [(1, 40_000), (40_001, 1), (100_000, 2)])
def test_a_thread_of_a_picture_is_cut_before_it_is_blown_up(size):
    """With a shorter side of 64 it would be 160 million pixels and more of which 4,096 are kept."""
    picture, cubic = noise(*size), v1.InterpolationMode.BICUBIC
    assert middle(picture, 64).size[size[1] > size[0]] < max(size)
    got = np.asarray(Preprocess(PreprocessConfig(size=64)).resize(picture)).astype(int)
    pixels = np.asarray(picture)
    cut = (max(size) - 1000) // 2
    pixels = pixels[cut:-cut] if size[1] > size[0] else pixels[:, cut:-cut]
    want = v1.CenterCrop(64)(v1.Resize(64, cubic)(Image.fromarray(pixels)))
    assert np.abs(got - np.asarray(want).astype(int)).max() <= 1


def test_what_is_not_that_long_is_left_alone():
    for size in ((1, 1), (1, 1000), (640, 480), (9000, 9000)):
        picture = Image.new("RGB", size)
        assert middle(picture, 224) is picture
    # Never above the bound.
    for size in ((1, 2_000_000), (1_999_999, 1), (3, 900_000)):
        wide, high = middle(Image.new("L", size), 224).size
        assert 224 * 224 * max(wide, high) / min(wide, high) <= MAX_PIXELS


@pytest.mark.parametrize(
    "config", [*CONFIGS.values(), PreprocessConfig(mean=(0.1, 0.5, 0.9), std=(1.0, 0.3, 0.7))]
)
def test_a_batch_of_bytes_is_normalised_as_each_picture_is(config):
    pictures = [noise(9, 7, seed) for seed in range(3)]
    preprocess = Preprocess(config)
    together = preprocess.normalise(torch.stack([torch.from_numpy(np.array(p)) for p in pictures]))
    assert torch.equal(together, torch.stack([preprocess.to_tensor(p) for p in pictures]))

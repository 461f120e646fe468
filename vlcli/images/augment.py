"""From the bytes of an image to the 8-bit pixels that training sees: a random part, turned, at the tower's size.

Nothing is computed that is not kept: the part is cut out while it is resized, and a JPEG much larger than needed is
decoded at 1/2, 1/4 or 1/8. Pixels stay bytes, (h, w, 3), until a whole batch of them is normalised at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from vlcli.images.config import Augmentation
from vlcli.images.decode import decode, load, rgb
from vlcli.images.preprocess import Preprocess
from vlcli.images.probe import open_image
from vlcli.images.resize import REDUCED, Box, shrink

RATIO = (3 / 4, 4 / 3)  # of width to height, of a part drawn by area
ALIGN = 346 / 289  # what ALIGN §5 resizes the shorter side to, and what it cuts out


class Augment:
    """`augment(data, rng)` → (size, size, 3) uint8; all that is random is drawn from `rng`.

    "none" is the preprocessing itself. "autoaugment" is the ImageNet policy on the picture at the tower's size (FILIP
    §3.2, Wukong). "crop-flip": the shorter side at ALIGN's 346/289 of the size, a random crop of the size, and a
    horizontal flip every other time (ALIGN §5). "resized-crop": a random part of `area` of the picture, from 3 : 4 to
    4 : 3, and a flip (Inception's; ALIGN §5.3). Raises ValueError for bytes that are no whole picture.
    """

    def __init__(
        self, name: Augmentation, preprocess: Preprocess, *, area: tuple[float, float] = (0.08, 1.0)
    ) -> None:
        self.name, self.preprocess, self.size, self.area = name, preprocess, preprocess.size, area
        self._policy = None
        if name == "autoaugment":
            from torchvision.transforms import v2

            self._policy = v2.AutoAugment(
                v2.AutoAugmentPolicy.IMAGENET, interpolation=v2.InterpolationMode.BILINEAR
            )

    def __call__(self, data: bytes, rng: random.Random) -> np.ndarray:
        if self.name == "none":
            return np.asarray(self.preprocess.resize(decode(data)))
        if self._policy is not None:
            return np.asarray(self._by_policy(self._plain(data), rng))
        image, format = open_image(data)
        if self.name == "crop-flip":
            shorter = round(self.size * ALIGN)
            box = window(_size(image, format), self.size, shorter, lambda room: rng.randint(0, room))
        else:
            box = resized_crop(_size(image, format), self.area, rng)
        flip = rng.random() < 0.5
        pixels = np.asarray(self._part(image, format, box))
        return pixels[:, ::-1] if flip else pixels

    def _plain(self, data: bytes) -> Image.Image:
        """What preprocessing resizes and cuts out, to a level or so."""
        config = self.preprocess.config
        if config.interpolation != "bicubic":
            return self.preprocess.resize(decode(data))
        image, format = open_image(data)
        width, height = _size(image, format)
        if config.fit == "squash":
            return self._part(image, format, (0, 0, width, height))
        shorter = self.preprocess.shorter
        return self._part(image, format, window((width, height), self.size, shorter, lambda room: room // 2))

    def _by_policy(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        assert self._policy is not None
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            seed = rng.getrandbits(63)
            torch.default_generator.manual_seed(seed)  # the CPU's alone: dropout on a GPU draws from another
            return self._policy(picture)

    def _part(self, image: Image.Image, format: str, box: Box) -> Image.Image:
        """The part `box` of an opened image in RGB, at the tower's size."""
        width, height = image.size
        need = REDUCED * self.size
        across, down = need * width / (box[2] - box[0]), need * height / (box[3] - box[1])
        loaded = load(image, format, at_least=(math.ceil(across), math.ceil(down)))
        left, upper, right, lower = loaded.box
        x, y = (right - left) / width, (lower - upper) / height
        part = (box[0] * x, box[1] * y, min(box[2] * x, right), min(box[3] * y, lower))
        return shrink(rgb(loaded.image, format), (self.size, self.size), part)


def _size(image: Image.Image, format: str) -> tuple[int, int]:
    """(width, height) as they will be when it is loaded: Pillow turns a TIFF then as its orientation says."""
    if format == "tiff":
        load(image, format)
    return image.size


def resized_crop(size: tuple[int, int], area: tuple[float, float], rng: random.Random) -> Box:
    """A random part of a picture of (width, height): its share of the area uniform in `area`, its ratio log-uniform in
    RATIO. Where ten draws do not fit, the largest part in the middle whose ratio is allowed."""
    width, height = size
    low, high = (math.log(ratio) for ratio in RATIO)
    for _ in range(10):
        wanted = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, upper, left + w, upper + h
    w = min(width, max(1, round(height * RATIO[1])))
    h = min(height, max(1, round(width / RATIO[0])))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def window(size: tuple[int, int], target: int, shorter: int, place: Callable[[int], int]) -> Box:
    """The part that a crop of `target` × `target` takes of a picture of (width, height) resized to `shorter` on its
    shorter side; `place` chooses where, from 0 to the room that there is."""
    box = []
    for side in size:
        resized = max(target, side * shorter // min(size))
        first = place(resized - target)
        box.append((first * side / resized, (first + target) * side / resized))
    (left, right), (upper, lower) = box
    return left, upper, min(right, size[0]), min(lower, size[1])

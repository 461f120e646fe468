"""From a decoded picture to the tensor a tower reads."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vlcli.images.config import PreprocessConfig
from vlcli.images.decode import MAX_PIXELS, on_white

INTERPOLATIONS = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "nearest": v2.InterpolationMode.NEAREST,
}


class Preprocess:
    """`preprocess(picture)` → (3, size, size) float32. With `size=` another square size than the configured one."""

    def __init__(self, config: PreprocessConfig, *, size: int | None = None) -> None:
        self.config = config
        self.size = size or config.size

    @property
    def shorter(self) -> int:
        """What the shorter side becomes before the crop; at another size than the configured one, in proportion."""
        return round((self.config.resize or self.config.size) * self.size / self.config.size)

    def resize(self, picture: Image.Image) -> Image.Image:
        """The picture at the tower's size, still 8-bit RGB (the place where augmentation comes in)."""
        if self.config.rgb != "after":
            picture = picture.convert("RGB") if self.config.rgb == "before" else on_white(picture)
        if self.config.fit == "squash":
            return self._scale(picture, [self.size, self.size]).convert("RGB")
        picture = self._scale(middle(picture, self.shorter), [self.shorter])
        return self._centre(picture).convert("RGB")

    def _scale(self, picture: Image.Image, size: list[int]) -> Image.Image:
        mode = INTERPOLATIONS[self.config.interpolation]
        if self.config.engine == "pillow":
            return F.resize(picture, size, interpolation=mode)
        return F.to_pil_image(F.resize(F.pil_to_tensor(picture.convert("RGB")), size, interpolation=mode))

    def _centre(self, picture: Image.Image) -> Image.Image:
        if self.config.centre == "nearest":
            return F.center_crop(picture, [self.size, self.size])
        x, y = (picture.width - self.size) // 2, (picture.height - self.size) // 2
        return picture.crop((x, y, x + self.size, y + self.size))

    def to_tensor(self, picture: Image.Image) -> torch.Tensor:
        """(3, h, w) float32, normalised by the configured mean and standard deviation."""
        pixels = F.to_dtype(F.pil_to_tensor(picture), torch.float32, scale=True)
        return F.normalize(pixels, list(self.config.mean), list(self.config.std))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, h, w, 3) uint8 → (b, 3, h, w) float32: what `to_tensor` makes of each, bit by bit."""
        b, h, w, _ = pixels.shape
        out = torch.empty((b, 3, h, w), device=pixels.device)
        out.copy_(pixels.permute(0, 3, 1, 2)).mul_(1 / 255)
        mean, std = (
            torch.tensor(x, device=pixels.device)[:, None, None] for x in (self.config.mean, self.config.std)
        )
        return out.sub_(mean).div_(std)

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        return self.to_tensor(self.resize(picture))


def middle(picture: Image.Image, size: int) -> Image.Image:
    """The picture, or the middle of one so long that, resized to `size` on its shorter side, it would exceed
    MAX_PIXELS: a thread of 1 × 100,000 is 300 bytes of PNG and would fill 15 GB."""
    short, long = sorted(picture.size)
    room = MAX_PIXELS * short // size**2
    if long <= room:
        return picture
    cut = (long - room + 1) // 2  # the same on both sides, so that the middle stays where it is
    x, y = (cut, 0) if picture.width == long else (0, cut)
    return picture.crop((x, y, picture.width - x, picture.height - y))

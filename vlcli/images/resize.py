"""Pictures made smaller, by a cubic filter."""

from __future__ import annotations

import threading
from typing import Any

from PIL import Image

# A JPEG may be decoded at 1/2, 1/4 or 1/8 for a picture this much smaller still. Against the full picture shrunk in
# floating point that costs less than 0.2 dB behind a JPEG of quality 95 (tests/bench/shard_resize.py).
REDUCED = 1.75
_COMMON = 1 << 24  # pixels; what a resizer has once needed for a larger picture it would keep

Box = tuple[float, float, float, float]


def shrink(picture: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """The part `box` (left, upper, right, lower) of an RGB picture in (width, height) = `size` pixels.

    By fast_image_resize, which has Pillow's method (two passes, the filter widened by the factor, fixed-point
    weights) with the processor's vector instructions, and the same bytes without them. Where it has no wheel,
    Pillow does it: ten times slower, and a few pixels differ by a few levels.
    """
    assert picture.mode == "RGB", picture.mode
    try:
        import cykooz_resizer as fast
    except ImportError:
        return picture.resize(size, Image.Resampling.BICUBIC, box)
    left, upper, right, lower = box
    options = fast.ResizeOptions(
        resize_alg=fast.ResizeAlg.convolution(fast.FilterType.catmull_rom),
        crop_box=fast.CropBox(left, upper, right - left, lower - upper),
    )
    small = Image.new("RGB", size, None)  # not filled: every pixel is written
    resizer = _resizer() if picture.width * picture.height <= _COMMON else fast.Resizer()
    resizer.resize_pil(picture, small, options)
    return small


_of_thread = threading.local()


def _resizer() -> Any:
    """This thread's: it keeps its memory from one picture to the next, and taking new memory costs as much as
    the work.
    """
    if not hasattr(_of_thread, "resizer"):
        from cykooz_resizer import Resizer

        _of_thread.resizer = Resizer()
    return _of_thread.resizer

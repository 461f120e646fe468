"""Generated pictures on their way out: the noise that they start from, PNGs that say what they were made of, and the
rows beside them, which are pairs again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import orjson
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from vlcli.generation.rows import GENERATED_BY
from vlcli.models.dropout import pair_key
from vlcli.records.atomic import atomic_directory

ROWS = "pairs.jsonl"  # in the directory of pictures


def noise_of(seed: int, keys: Sequence[object], shape: Sequence[int]) -> Tensor:
    """(len(keys), *shape) float32 on the CPU, standard normal: each row is a function of the seed and its key alone,
    whatever stands beside it and on whichever device it is needed."""
    rows = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(pair_key(seed, key, "noise")))
        for key in keys
    ]
    return torch.stack(rows) if rows else torch.empty(0, *shape)


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """(b, 3, h, w) in −1 … 1 → RGB pictures of 8 bits; what lies beyond is cut."""
    levels = pixels.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return [Image.fromarray(one) for one in levels.permute(0, 2, 3, 1).cpu().numpy()]


def png_info(text: str, origin: Mapping[str, Any]) -> PngInfo:
    """The texts of a PNG: `prompt` as iTXt (UTF-8), and as tEXt each setting and hash that `generated_by` has."""
    info = PngInfo()
    info.add_itxt("prompt", text)
    info.add_text("Software", f"vlcli {origin['vlcli']}")
    settings = {name: value for name, value in origin.items() if name not in ("vlcli", "models")}
    for name, value in {**origin["models"], **settings}.items():
        info.add_text(name, value if isinstance(value, str) else orjson.dumps(value).decode())
    return info


class Album:
    """Pictures of one directory, and a line of `pairs.jsonl` for each, with a reference relative to it."""

    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0
        self._rows = open(place / ROWS, "wb")  # noqa: SIM115 (closed by `album`)

    def add(
        self,
        picture: Image.Image,
        text: str,
        origin: Mapping[str, Any],
        *,
        name: str,
        columns: Mapping[str, Any] | None = None,
    ) -> str:
        """Write a picture and its row; returns the file's name. `name` is the row's id, `origin` what `generated_by`
        of rows.py gives, `columns` what else the row carries."""
        file = f"{self.count:06}.png"
        picture.save(self.place / file, pnginfo=png_info(text, origin))
        size = {"width": picture.width, "height": picture.height}
        row = {**(columns or {}), "id": name, "image": file, "text": text, **size, GENERATED_BY: dict(origin)}
        self._rows.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self.count += 1
        return file

    def close(self) -> None:
        self._rows.close()


@contextmanager
def album(path: str | PathLike[str], *, force: bool = False) -> Iterator[Album]:
    """A directory of pictures that appears under its name when the block ends well, and leaves nothing behind
    otherwise. UsageError where something stands there and `force` is False."""
    with atomic_directory(path, force=force) as place:
        pictures = Album(place)
        try:
            yield pictures
        finally:
            pictures.close()

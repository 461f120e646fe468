"""Dual encoders small enough to build in a test, randomly initialised, and tables of coloured squares."""

from __future__ import annotations

import io
from functools import lru_cache
from types import SimpleNamespace

import polars as pl
import torch
from PIL import Image

from vlcli.images.preprocess import PreprocessConfig
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig, ReductionConfig, TextTowerConfig
from vlcli.models.dual import DualEncoder

COLOURS = {"红色": "red", "绿色": "green", "蓝色": "blue", "黑色": "black", "黄色": "yellow", "白色": "white"}


@lru_cache
def tiny(
    similarity: str = "tokenwise", tower: str = "test_vit", size: int = 64, reduction: str = "released"
) -> DualEncoder:
    """A test model of timm with a text tower of one layer; eval mode; the same weights every time."""
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = DualEncoder(
        DualEncoderConfig(
            dim=16,
            similarity=similarity,
            reduction=ReductionConfig(kind=reduction, tokens=4),
            image=ImageTowerConfig(name=tower, preprocess=PreprocessConfig(size=size)),
            text=TextTowerConfig(width=16, layers=1, heads=2),
        )
    ).eval()
    torch.random.set_rng_state(generator)
    model.checkpoint_hash = "0123456789abcdef"
    return model


def square(colour: str, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


class Table(SimpleNamespace):
    """What a PairTable says, of pictures in memory."""

    def __len__(self) -> int:
        return len(self.ids)

    def image_bytes(self, i: int) -> bytes:
        return self.pictures[i]


def table(**columns) -> Table:
    names = list(COLOURS)
    return Table(
        source="squares.jsonl",
        split_hash="f" * 64,
        ids=[f"square/{i}" for i in range(len(names))],
        image_ids=[f"image-{i}" for i in range(len(names))],
        texts=[[name] for name in names],
        pictures=[square(COLOURS[name]) for name in names],
        frame=pl.DataFrame({"label": names, **columns}),
    )

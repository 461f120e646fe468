"""Diffusion models in Stable Diffusion's format and text encoders, tiny and random, and pairs of coloured squares."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import diffusers
import torch
from PIL import Image

from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import TextEncoderConfig, TextHeadConfig, TextTowerConfig
from vlcli.models.text_encoder import TextEncoder
from vlcli.recipes import load_key_values_recipe

WIDTH = 24
TINY = (
    "diffusion.size=16",
    "data.batch_size=4",
    "schedule.steps=4",
    "schedule.warmup_steps=1",
    "train.log_every=1",
    "train.save_every=2",
    "train.evaluate_every=2",
)
COLOURS = {
    "红色": "red",
    "green": "green",
    "azul": "blue",
    "أسود": "black",
    "黄色": "yellow",
    "белый": "white",
}


def unet(width: int = WIDTH, **named) -> diffusers.UNet2DConditionModel:
    sizes = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "cross_attention_dim": width,
    }
    return diffusers.UNet2DConditionModel(**sizes | named)


def save_diffusion(
    folder: Path,
    width: int = WIDTH,
    *,
    prediction: str = "epsilon",
    scheduler: str = "PNDMScheduler",
    seed: int = 0,
) -> Path:
    """As diffusers' pipeline saves itself; pictures of 16 pixels, latents of 8."""
    torch.manual_seed(seed)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )
    more = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}  # as Stable Diffusion v1-4
    how = more | {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet(width),
        scheduler=getattr(diffusers, scheduler)(**how, prediction_type=prediction, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def encoder(width: int = WIDTH, dim: int | None = None, seed: int = 0) -> TextEncoder:
    """A causal tower of one layer with a head of `width`."""
    torch.manual_seed(seed)
    text = TextTowerConfig(width=16, layers=1, heads=2, context=20, head=TextHeadConfig(width=width))
    return TextEncoder(TextEncoderConfig(text=text, dim=dim)).eval()


def save_encoder(folder: Path, width: int = WIDTH, dim: int | None = None, seed: int = 0) -> Path:
    save_checkpoint(encoder(width, dim, seed), folder, recipe={}, lineage={})
    return folder


def write_pairs(file: Path, count: int = 12) -> Path:
    lines = []
    for i in range(count):
        word, colour = list(COLOURS.items())[i % len(COLOURS)]
        buffer = io.BytesIO()
        Image.new("RGB", (20, 20), colour).save(buffer, "PNG")
        data = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        lines.append(
            json.dumps({"id": f"square/{i}", "image": data, "text": f"{word} {i}"}, ensure_ascii=False)
        )
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def recipe(*overrides: str):
    return load_key_values_recipe("emoji-diffusion", [*TINY, *overrides])

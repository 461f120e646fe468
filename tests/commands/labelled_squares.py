"""Noisy squares of three colours in tables with labels, a tower that learnt nothing, and what tests do with these."""

import json

import numpy as np
import torch
from PIL import Image

from vlcli.cli import app
from vlcli.errors import VlcliError
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig, TextTowerConfig
from vlcli.models.dual import DualEncoder

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230)}


def model_of(tower="test_vit", size=32):
    torch.manual_seed(0)
    image = ImageTowerConfig(name=tower, preprocess={"size": size})
    text = TextTowerConfig(width=16, layers=1, heads=2)
    return DualEncoder(DualEncoderConfig(dim=16, similarity="global", image=image, text=text)).eval()


def squares(here, counts, deviation, *, absolute=False):
    """A table `NAME.jsonl` in `here` for each of `counts`, and its pictures."""
    noise = np.random.default_rng(0)
    for name, count in counts.items():
        rows = []
        for i in range(count):
            label = list(COLOURS)[i % 3]
            pixels = np.clip(COLOURS[label] + noise.normal(0, deviation, (24, 24, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(here / f"{name}-{i}.png")
            place = str(here / f"{name}-{i}.png") if absolute else f"{name}-{i}.png"
            rows.append({"id": f"{name}/{i}", "image": place, "label": label})
        write(here / f"{name}.jsonl", rows)


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(file):
    return [json.loads(line) for line in file.open()]


def run(*arguments):
    """(exit code, the one line that was said)."""
    try:
        return app([str(a) for a in arguments], prog_name="vlcli", standalone_mode=False) or 0, ""
    except VlcliError as error:
        return error.exit_code, str(error)

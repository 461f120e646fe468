"""The three parts of text-to-image, random and small enough to build in a test, and a few coloured pictures."""

import io
import json
from functools import lru_cache

import torch
from PIL import Image

from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig, TextTowerConfig
from vlcli.models.decoder import Decoder
from vlcli.models.diffusion_config import DecoderConfig, PriorConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.prior import Prior

PRIOR = {"layers": 1, "heads": 2, "head_width": 8}
DECODER = {"size": 16, "channels": [16, 16], "attention": [8], "blocks": 1, "head_width": 8, "groups": 8}
COLOURS = {"红色": "red", "绿色": "green", "蓝色": "blue", "黑色": "black", "黄色": "yellow", "白色": "white"}
OTHER = "f" * 16  # a hash that no checkpoint here has


def dual(similarity="global"):
    torch.manual_seed(0)
    image = ImageTowerConfig(name="test_vit", preprocess={"size": 64})
    text = TextTowerConfig(width=16, layers=1, heads=2, context=8)
    return DualEncoder(DualEncoderConfig(dim=12, similarity=similarity, image=image, text=text)).eval()


def prior(encoder, **changes):
    torch.manual_seed(1)
    shape = PRIOR | {"encoder": encoder, "dim": 12, "text_width": 16, "context": 8} | changes
    model = Prior(PriorConfig.model_validate(shape))
    model.standardise_by(torch.linspace(-0.1, 0.1, 12), torch.linspace(0.2, 0.4, 12))
    return model.eval()


def decoder(encoder, **changes):
    torch.manual_seed(2)
    model = Decoder(DecoderConfig.model_validate(DECODER | {"encoder": encoder, "dim": 12} | changes))
    model.standardise_by(torch.linspace(-0.1, 0.1, 12), torch.linspace(0.2, 0.4, 12))
    return model.eval()


def saved(model, place):
    save_checkpoint(model, place, recipe={"name": "tiny"}, lineage={})
    return place


@lru_cache
def square(colour, copy=0):
    """One colour, and a bar that tells its copies apart."""
    picture, buffer = Image.new("RGB", (40, 40), colour), io.BytesIO()
    picture.paste("gray", (10 * copy, 0, 10 * copy + 6, 40))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def rows(folder, copies=1):
    """A JSONL file of pairs, and its pictures."""
    folder.mkdir(exist_ok=True)
    lines = []
    for copy in range(copies):
        for number, (name, colour) in enumerate(COLOURS.items()):
            file = f"{number}-{copy}.png"
            (folder / file).write_bytes(square(colour, copy))
            lines.append({"id": f"{colour}/{copy}", "image": file, "text": f"{name}{copy}", "label": colour})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder / "pairs.jsonl"
